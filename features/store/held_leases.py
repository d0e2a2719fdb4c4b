"""Tracks the leases that this process holds, and whether they are still valid.

A process may be suspended for longer than its lease is valid; garbage collection then assumes that the process is dead.
A holder therefore stops using its lease early, by its own clock, and never renews it afterwards.
"""

import contextlib
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from threading import Lock

from features.io.atomic_files import touch, write
from schemas.errors import StoreError

# Fraction of a lease's time after which its holder stops using it. The rest is for requests in progress.
_HELD_FRACTION = 0.75


def clock() -> float:
    """Returns a time in seconds that goes on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class HeldLease:
    """A lease file that this process has written and renews; `tables` are the directories of the leased tables."""

    def __init__(self, path: Path, data: bytes, seconds: float, tables: frozenset[Path]) -> None:
        self.path = path
        self.tables = tables
        self._data = data
        self._seconds = seconds
        self._lock = Lock()
        self._renewed = clock()
        write(path, data)

    @property
    def holds(self) -> bool:
        """Whether the lease is valid, and stays valid for a safety margin."""
        return clock() - self._renewed < self._seconds * _HELD_FRACTION

    def renew(self) -> None:
        """Renews the lease, unless it has expired."""
        with self._lock:
            started = clock()
            if self.holds:
                touch(self.path, self._data)
                self._renewed = started

    def now(self) -> float:
        """Renews the lease and returns the time of the renewal by the clock of the store's file system or service."""
        self.renew()
        self.check()
        return self.path.stat().st_mtime

    def check(self) -> None:
        """Raises StoreError if the lease has expired."""
        if not self.holds:
            raise StoreError(
                "the lease expired while this process was suspended or could not reach the store",
                location=str(self.path),
                hint="Run the same command again.",
            )


_held: ContextVar[tuple[HeldLease, ...]] = ContextVar("held leases", default=())


def held_leases() -> tuple[HeldLease, ...]:
    """Returns the leases that the current job holds."""
    return _held.get()


def check_lease(root: Path) -> None:
    """Raises StoreError if the current job has leases on a table and all of them have expired."""
    leases = [lease for lease in _held.get() if root in lease.tables]
    if leases and not any(lease.holds for lease in leases):
        leases[0].check()


@contextlib.contextmanager
def register_lease(lease: HeldLease) -> Iterator[None]:
    """Adds a lease to the leases of the current job while the block runs."""
    token = _held.set((*_held.get(), lease))
    try:
        yield
    finally:
        _held.reset(token)
