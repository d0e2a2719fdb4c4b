"""Creates temporary directories and locks of a job. Those of a killed job have no effect on later jobs."""

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
    """Creates a local directory in `work` for the block. A lock file beside it shows that its job is running."""
    make_directory(working_path(work))
    _remove_abandoned(work)
    directory = working_path(work) / f"run-{uuid.uuid4().hex}"
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
    """Creates a directory in `work` for a work plan. If `work` is in a bucket, workers on other machines see it too."""
    with open_scratch(work) as directory:
        plan = work / directory.name
        try:
            yield plan
        finally:
            remove_tree(plan)


@contextlib.contextmanager
def hold_job_lock(lock: Path) -> Iterator[None]:
    """Holds a lock file in the block, after waiting for any other process of this machine that holds it."""
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
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _log.info("Waiting for another process with the same job (%s).", lock)
                fcntl.flock(held, fcntl.LOCK_EX)
            # The last holder has deleted the file, and another process may have created a new one in the meantime.
            if lock.stat().st_ino == os.fstat(held).st_ino:
                return held
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(held)
            raise
        os.close(held)


def _remove_abandoned(work: Path) -> None:
    """Removes the directories of killed jobs, whose locks are free."""
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
