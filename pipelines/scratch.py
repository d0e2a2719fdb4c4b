"""Scratch directories and locks: gone when their run ends, and of no effect where it was killed."""

import contextlib
import fcntl
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

_LOCK = ".lock"

_log = logging.getLogger("capt.prepare")


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


@contextlib.contextmanager
def claimed(lock: Path) -> Iterator[None]:
    """Be the only process in such a block with the lock file `lock`; waits for the one that is there now."""
    held = _acquire(lock)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(held)


def _acquire(lock: Path) -> int:
    lock.parent.mkdir(parents=True, exist_ok=True)
    while True:
        held = os.open(lock, os.O_CREAT | os.O_RDWR)
        try:
            _wait_for(held, lock)
            # Who held it has deleted it: another may have made it anew meanwhile.
            if lock.stat().st_ino == os.fstat(held).st_ino:
                return held
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(held)
            raise
        os.close(held)


def _wait_for(held: int, lock: Path) -> None:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _log.info("another run is doing the same; waiting for it (%s)", lock)
        fcntl.flock(held, fcntl.LOCK_EX)


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
