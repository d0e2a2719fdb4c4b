"""Which files of a mirror living processes use: each holds locks on the bytes that stand for them in one file."""

import fcntl
import hashlib
import os
from functools import lru_cache
from pathlib import Path
from threading import Lock


class CacheUsage:
    """The marks of this process, and what they tell of others. A process that dies lets go of its own.

    Args:
        path: Path. The file whose bytes are locked.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Closing any descriptor of this file would let go of all of the process's locks: there is one, and it stays.
        self._descriptor = os.open(path, os.O_CREAT | os.O_RDWR)
        self._held: set[Path] = set()
        self._lock = Lock()

    def hold(self, local: Path) -> None:
        """Have a file stay as long as this process lives; waits for who is deleting it at this moment."""
        with self._lock:
            if local not in self._held:
                fcntl.lockf(self._descriptor, fcntl.LOCK_SH, 1, _byte(local))
                self._held.add(local)

    def delete(self, local: Path) -> bool:
        """Delete a file unless a living process holds it; whether it is gone."""
        with self._lock:
            if local in self._held:
                return False
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _byte(local))
            except OSError:
                return False
            local.unlink(missing_ok=True)
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, _byte(local))
            return True


def cache_usage(path: Path) -> CacheUsage:
    """What tells it by the file at `path`; one a process, for locks do not survive a fork."""
    return _in_use(path, os.getpid())


@lru_cache(maxsize=64)
def _in_use(path: Path, process: int) -> CacheUsage:
    return CacheUsage(path)


def _byte(local: Path) -> int:
    return int.from_bytes(hashlib.sha256(str(local).encode()).digest()[:7], "big")
