"""Scratch directories: gone when their run ends, and swept away by the next run where it was killed."""

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

_LOCK = ".lock"


@contextlib.contextmanager
def scratch(work: Path) -> Iterator[Path]:
    """A new directory in `work`, removed afterwards; a lock beside it tells that its run is alive."""
    work.mkdir(parents=True, exist_ok=True)
    _sweep(work)
    directory = work / f"run-{uuid.uuid4().hex}"
    lock = directory.with_suffix(_LOCK)
    held = os.open(lock, os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        directory.mkdir()
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        lock.unlink(missing_ok=True)
        os.close(held)


def _sweep(work: Path) -> None:
    """Remove what killed runs left: their locks are free."""
    for lock in work.glob(f"run-*{_LOCK}"):
        with contextlib.suppress(FileNotFoundError):
            held = os.open(lock, os.O_RDWR)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                lock.unlink(missing_ok=True)
            except BlockingIOError:
                pass
            finally:
                os.close(held)
