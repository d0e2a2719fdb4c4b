"""Runs the downloads of several shards in threads, within the limits of each host."""

import contextlib
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Protocol, TypeVar

from features.inputs.image_urls import DownloadLimits
from pipelines.ingest.host_turns import HostLimits, HostTurns, get_host

_MAX_IDLE_HOSTS = 4096
_WAKE_SECONDS = 0.2


class _HasUrl(Protocol):
    @property
    def url(self) -> str: ...


Task = TypeVar("Task", bound=_HasUrl)


class _Host(HostTurns, Generic[Task]):
    """The waiting tasks of a host, how often it waits for a thread, and the number of threads that serve it."""

    def __init__(self, name: str, limits: DownloadLimits, host_limits: HostLimits) -> None:
        super().__init__(limits, host_limits)
        self.name = name
        self.tasks: deque[Task] = deque()
        self.waiting = self.served = 0


class DownloadQueue(Generic[Task]):
    """Runs tasks in threads. The hosts take turns, so a slow host or one with many tasks delays no other.

    `run` downloads the URL of a task, and raises no error that concerns this task alone. A host that is closed is
    requested again once none of its tasks waits. The threads are daemons, so that an interrupted job ends at once.
    """

    def __init__(self, run: Callable[[HostTurns, Task], None], limits: DownloadLimits, host_limits: HostLimits) -> None:
        self._run, self._limits, self._host_limits = run, limits, host_limits
        self._hosts: dict[str, _Host[Task]] = {}
        # Hosts without tasks, because the time of their last request still counts.
        self._idle: OrderedDict[str, _Host[Task]] = OrderedDict()
        self._waiting: deque[_Host[Task]] = deque()
        self._changed = threading.Condition()
        self._broken: BaseException | None = None
        self._has_ended = False

    @contextlib.contextmanager
    def start(self) -> Iterator[None]:
        """Runs the threads during the block."""
        threads = [
            threading.Thread(target=self._work, name="download", daemon=True) for _ in range(self._host_limits.threads)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            with self._changed:
                self._has_ended = True
                self._changed.notify_all()

    def add(self, tasks: Iterable[Task]) -> None:
        """Adds tasks behind the waiting ones of their hosts."""
        with self._changed:
            for task in tasks:
                name = get_host(task.url)
                if name not in self._hosts:
                    new = _Host[Task](name, self._limits, self._host_limits)
                    self._hosts[name] = self._idle.pop(name, new)
                self._hosts[name].tasks.append(task)
                self._offer(self._hosts[name])
            self._changed.notify_all()

    def check(self) -> None:
        """Raises the error that has stopped the threads, if any."""
        if self._broken:
            raise self._broken

    def _work(self) -> None:
        try:
            while taken := self._take():
                host, task = taken
                self._run(host, task)
                self._release(host)
        except BaseException as error:
            self._broken = self._broken or error

    def _take(self) -> tuple[_Host[Task], Task] | None:
        """Waits for a task; None at the end."""
        with self._changed:
            while not self._has_ended and not self._broken:
                if self._waiting:
                    host = self._waiting.popleft()
                    host.waiting -= 1
                    host.served += 1
                    return host, host.tasks.popleft()
                self._changed.wait(_WAKE_SECONDS)
        return None

    def _release(self, host: _Host[Task]) -> None:
        with self._changed:
            host.served -= 1
            self._offer(host)
            if host.tasks or host.served:
                return
            del self._hosts[host.name]
            if not host.is_closed:
                self._idle[host.name] = host
                while len(self._idle) > _MAX_IDLE_HOSTS:
                    self._idle.popitem(last=False)

    def _offer(self, host: _Host[Task]) -> None:
        """Puts a host behind the others that wait for threads, as often as it may be served."""
        while host.waiting < len(host.tasks) and host.waiting + host.served < self._host_limits.connections:
            host.waiting += 1
            self._waiting.append(host)
