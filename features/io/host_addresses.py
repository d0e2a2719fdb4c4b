"""Keeps the answers of name servers for some minutes, so that the next connection to a host needs no look-up.

Whoever connects checks the addresses each time (`features.io.public_http`), so a kept answer is no more trusted than a
new one.
"""

import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# Errors of `socket.getaddrinfo` that mean that a host does not exist.
NO_SUCH_HOST = frozenset((socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)))

# A name server may be wrong for a moment.
_MISSING_SECONDS = 10.0


@dataclass(frozen=True)
class _Answer:
    """The items of `socket.getaddrinfo`, or the error that it raised. `end` is the time at which it is forgotten."""

    infos: Sequence[Any]
    error: socket.gaierror | None
    end: float


class AddressCache:
    """The addresses of the hosts that were used last. Threads may share it.

    That a host does not exist is kept for a short time; other errors are not.

    Args:
        max_hosts: Number of hosts that are kept.
        seconds: Time after which a host is looked up again, ten seconds at most if it did not exist.
    """

    def __init__(self, max_hosts: int = 4096, seconds: float = 300.0) -> None:
        self._max_hosts, self._seconds = max_hosts, seconds
        self._answers: OrderedDict[tuple[str, int], _Answer] = OrderedDict()
        self._lock = threading.Lock()

    def resolve(self, host: str, port: int) -> Sequence[Any]:
        """Returns what `socket.getaddrinfo` does for TCP, and raises the same errors."""
        with self._lock:
            answer = self._answers.get((host, port))
            if answer is not None:
                self._answers.move_to_end((host, port))
        if answer is None or answer.end < time.monotonic():
            answer = self._look_up(host, port)
        if answer.error is not None:
            raise socket.gaierror(*answer.error.args)
        return answer.infos

    def forget(self, host: str, port: int) -> None:
        """Forgets the addresses of a host, because none of them can be reached."""
        with self._lock:
            self._answers.pop((host, port), None)

    def _look_up(self, host: str, port: int) -> _Answer:
        infos, failure = [], None
        try:
            infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            if error.errno not in NO_SUCH_HOST:
                raise
            failure = error
        seconds = min(self._seconds, _MISSING_SECONDS) if failure else self._seconds
        answer = _Answer(infos, failure, time.monotonic() + seconds)
        with self._lock:
            self._answers[host, port] = answer
            while len(self._answers) > self._max_hosts:
                self._answers.popitem(last=False)
        return answer
