"""Tracks the leases that this process holds, and whether each still holds.

A process may be suspended for longer than its lease holds; garbage collection then takes the process for dead. So a
holder gives up its lease before others do, by a clock of its own, and never renews it afterwards.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from threading import Lock

from features.io.atomic_files import touch, write
from schemas.errors import StoreError

# Fraction of a lease's time after which its holder gives it up. The rest is for requests that are under way.
_HELD = 0.75


def clock() -> float:
    """Returns the seconds since some moment, the time in which the machine slept included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


class HeldLease:
    """A lease file that this process has put and renews.

    Args:
        path: The lease's file.
        data: Its bytes.
        seconds: How long the lease holds after its file was last touched.
        tables: The directories of the tables that it names.
    """

    def __init__(self, path: Path, data: bytes, seconds: float, tables: Mapping[Path, object]) -> None:
        self.path = path
        self.tables = frozenset(tables)
        self._data = data
        self._seconds = seconds
        self._lock = Lock()
        self._renewed = clock()
        write(path, data)

    @property
    def holds(self) -> bool:
        """Whether nobody else can take the lease for one that has ended."""
        return clock() - self._renewed < self._seconds * _HELD

    def renew(self) -> None:
        """Renews the lease, unless it has run out."""
        with self._lock:
            started = clock()
            if self.holds:
                touch(self.path, self._data)
                self._renewed = started

    def now(self) -> float:
        """Renews the lease and returns when that was, by the clock of the store's file system or service.

        Raises:
            StoreError: The lease has run out.
        """
        self.renew()
        self.check()
        return self.path.stat().st_mtime

    def check(self) -> None:
        """Raises an error if the lease has run out.

        Raises:
            StoreError: The lease has run out.
        """
        if not self.holds:
            raise StoreError(
                "the lease ran out while this process was suspended or could not reach the store",
                location=str(self.path),
                hint="run the same command again",
            )


_held: ContextVar[tuple[HeldLease, ...]] = ContextVar("held leases", default=())


def held_leases() -> tuple[HeldLease, ...]:
    """Returns the leases that the present job holds."""
    return _held.get()


def check_lease(root: Path) -> None:
    """Raises an error if the present job's leases on a table have run out.

    Args:
        root: The table's directory.

    Raises:
        StoreError: All of them have run out.
    """
    mine = [lease for lease in _held.get() if root in lease.tables]
    if mine and not any(lease.holds for lease in mine):
        mine[0].check()


@contextlib.contextmanager
def register_lease(lease: HeldLease) -> Iterator[None]:
    """Counts a lease among those that the present job holds while the block runs."""
    token = _held.set((*_held.get(), lease))
    try:
        yield
    finally:
        _held.reset(token)
