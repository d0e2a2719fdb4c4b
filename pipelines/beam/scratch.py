"""Scratch directories and locks: gone when their run ends, and of no effect where it was killed."""

import contextlib
import fcntl
import logging
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from features.io.atomic_files import make_directory, working_path
from features.io.file_trees import remove_tree

_LOCK = ".lock"

_log = logging.getLogger("capt.prepare")


@contextlib.contextmanager
def open_scratch(work: Path) -> Iterator[Path]:
    """A new directory on this machine in `work`, removed afterwards; a lock beside it tells that its run is alive."""
    here = working_path(work)
    make_directory(here)
    _sweep(work)
    directory = here / f"run-{uuid.uuid4().hex}"
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
def open_scratch_plan(work: Path) -> Iterator[Path]:
    """A new directory in `work` for a plan, which workers on other machines see too where `work` is in a bucket."""
    with open_scratch(work) as directory:
        plan = work / directory.name
        try:
            yield plan
        finally:
            remove_tree(plan)


@contextlib.contextmanager
def hold_job_lock(lock: Path) -> Iterator[None]:
    """Be the only process of this machine in such a block with the lock file `lock`; waits for the one there now."""
    lock = working_path(lock)
    held = _acquire(lock)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(held)


def _acquire(lock: Path) -> int:
    make_directory(lock.parent)
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
    for lock in working_path(work).glob(f"run-*{_LOCK}"):
        with contextlib.suppress(FileNotFoundError):
            held = os.open(lock, os.O_RDWR)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
                remove_tree(work / lock.stem)
                lock.unlink(missing_ok=True)
            except BlockingIOError:
                pass
            finally:
                os.close(held)
