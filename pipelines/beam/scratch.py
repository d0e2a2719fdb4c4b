"""Creates temporary directories of a job. Those of a killed job have no effect on later jobs."""

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from features.io.atomic_files import make_directory, working_path
from features.io.file_trees import remove_tree

_LOCK = ".lock"


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
