"""Jobs on one store in threads, of which one at a time runs: up to the next request that another job may notice.

    local store    listings, renames, links, deletions and changes of times below its directory (audit events of Python)
    bucket         listings, puts and deletions (`tests.features.memory_bucket`)

A killed job makes no further request. Time is what the store's files say: `World.pass_time` makes all of them older.
"""

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal
from unittest import mock

from features.io.cache_paths import cache_root
from features.store import Store, create_store, held_leases, leases, open_store
from features.store.held_leases import HeldLease
from tests.features.memory_bucket import MemoryBucket, serving

_SECONDS = 60
_EVENTS = ("os.scandir", "os.listdir", "os.rename", "os.link", "os.remove", "os.utime", "os.rmdir", "shutil.rmtree")
_LISTINGS = ("os.scandir", "os.listdir", "list", "wait")

_present = threading.local()


class Killed(BaseException):
    """The job has been killed."""


class Job:
    """A function that runs in a thread of its own, and only when it is told to.

    Args:
        name: What it is called.
        function: What it does.
    """

    def __init__(self, name: str, function: Callable[[], object]) -> None:
        self.name = name
        self.result: object = None
        self.error: BaseException | None = None
        self.is_done = self.is_killed = self.was_suspended = False
        self.location = "list"
        self.steps = 0
        self.leases: list[HeldLease] = []
        self._function = function
        self._go, self._paused = threading.Semaphore(0), threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def is_at_listing(self) -> bool:
        """Whether no change is under way, which takes no time: a lease is checked just before it."""
        return self.is_done or self.location in _LISTINGS

    def step(self, count: int = 1) -> None:
        """Let it make so many requests, or fewer where it ends."""
        for _ in range(count):
            if self.is_done:
                return
            self.steps += 1
            self._go.release()
            assert self._paused.acquire(timeout=_SECONDS), f"{self.name} hangs after {self.location}"

    def kill(self) -> None:
        """Let it make no request any more."""
        self.is_killed = True
        self._go.release()
        self._thread.join(_SECONDS)
        assert not self._thread.is_alive()

    def pause(self, location: str) -> None:
        """Wait, in its thread, until it is told to go on."""
        if not self.is_killed:
            self.location = location
            self._paused.release()
            self._go.acquire()
        if self.is_killed:
            raise Killed

    def _run(self) -> None:
        _present.job = self
        self._go.acquire()
        try:
            if not self.is_killed:
                self.result = self._function()
        except Killed:
            pass
        except BaseException as error:  # the test tells what it may be
            self.error = error
        self.is_done = True
        self._paused.release()


class World:
    """A store, the time there, and the jobs on it.

    Args:
        store: The store.
        bucket: The bucket that has it; None for a directory.
    """

    def __init__(self, store: Store, bucket: MemoryBucket | None) -> None:
        self.store = store
        self.jobs: list[Job] = []
        self.seconds = 0.0
        self._bucket = bucket

    def pass_time(self, seconds: float, suspended: Job | None = None) -> None:
        """Let time pass; jobs renew their leases meanwhile, but for one that is suspended and those that are dead."""
        if self._bucket:
            self._bucket.shift(seconds)
            _shift(self.store.path.working_path, seconds)  # type: ignore[attr-defined]
        else:
            _shift(self.store.path, seconds)
        self.seconds += seconds
        for job in self.jobs:
            if job is suspended:
                job.was_suspended = job.was_suspended or seconds > leases.COLLECT_SECONDS / 2
            elif not job.is_done:
                for lease in job.leases:
                    self._renew(lease)

    def _renew(self, lease: HeldLease) -> None:
        lease._renewed = held_leases.clock()
        if not lease.path.exists():
            return
        if self._bucket:
            key = str(lease.path).partition("://")[2].partition("/")[2]
            self._bucket._put(key, self._bucket.objects[key][1])
        else:
            os.utime(lease.path)


def _shift(root: Path, seconds: float) -> None:
    for directory, _, names in os.walk(root):
        for name in names:
            path = Path(directory, name)
            changed = path.stat().st_mtime - seconds
            os.utime(path, (changed, changed))


def _pause(location: str) -> None:
    job = getattr(_present, "job", None)
    if job:
        job.pause(location)


_watched: list[str] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _EVENTS and _watched and hasattr(_present, "job"):
        path = arguments[1] if event in ("os.rename", "os.link") else arguments[0]
        if isinstance(path, (str, Path)) and str(path).startswith(_watched[-1]):
            _pause(event)


@cache
def _hook() -> None:
    """Have the events of Python told; they cannot be untold."""
    sys.addaudithook(_audit)


class Template:
    """A store that each example begins with a copy of.

    Args:
        directory: Where stores are kept.
        build: Fills the store.
        kind: Where it is: `directory` or `bucket`.
    """

    def __init__(self, directory: Path, build: Callable[[World], None], kind: Literal["directory", "bucket"]) -> None:
        self.kind = kind
        self._directory = directory
        self._objects: dict[str, Any] = {}
        self._number = 0
        _hook()
        with self._world(directory / "template") as world:
            build(world)
            if world._bucket:
                self._objects = dict(world._bucket.objects)

    @contextmanager
    def copied(self) -> Iterator[World]:
        """A copy of the store, with no jobs; they are killed at the end of the block."""
        self._number += 1
        root = self._directory / str(self._number)
        shutil.copytree(self._directory / "template", root)
        try:
            with self._world(root) as world:
                yield world
        finally:
            shutil.rmtree(root)

    @contextmanager
    def _world(self, root: Path) -> Iterator[World]:
        init = HeldLease.__init__

        def registered(lease: HeldLease, *arguments: Any) -> None:
            # It is known before its file is put, which takes requests.
            if job := getattr(_present, "job", None):
                job.leases.append(lease)
            init(lease, *arguments)

        worlds: list[World] = []
        with ExitStack() as stack:
            stack.enter_context(mock.patch.dict(os.environ, {"CAPT_CACHE_DIR": str(root / "mirror")}))
            assert str(cache_root()).startswith(str(root))
            stack.enter_context(mock.patch.object(HeldLease, "__init__", registered))
            stack.enter_context(mock.patch.object(leases, "pause", partial(_pause, "wait")))

            def clock() -> float:
                return time.monotonic() + (worlds[0].seconds if worlds else 0.0)

            stack.enter_context(mock.patch.object(held_leases, "clock", clock))
            bucket = None
            if self.kind == "bucket":
                bucket = MemoryBucket(lambda message, key: _pause(message), time.time_ns)
                bucket.objects = dict(self._objects)
                address: str | Path = stack.enter_context(serving(bucket))
            else:
                address = root / "store"
            create_store(address)
            _watched.append(str(address))
            world = World(open_store(address), bucket)
            worlds.append(world)
            try:
                yield world
            finally:
                for job in world.jobs:
                    if not job.is_done:
                        job.kill()
                _watched.pop()
