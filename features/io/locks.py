"""Locks files so that one process works at a time. A lock ends with its process, also if it is killed."""

import contextlib
import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from features.io.atomic_files import make_directory, working_path
from schemas.errors import CaptError, ExitCode
from schemas.strict_json import parse_json

_log = logging.getLogger("capt.prepare")


class LockedError(CaptError):
    """Another process holds the lock."""

    exit_code = ExitCode.LOCKED


@contextlib.contextmanager
def hold_lock(path: Path, activity: str) -> Iterator[None]:
    """Holds the lock file `path`, which names its last holder and is not deleted, while the block runs.

    For whole commands, of which a second one is a mistake: it fails at once. `wait_for_lock` waits instead.

    Raises:
        LockedError: Another process holds the lock; the message names it, its host, its `activity` and the time.
    """
    make_directory(path.parent)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            hint = "Wait until this process ends."
            raise LockedError(_describe_holder(path), location=str(path), hint=hint) from None
        file.truncate(0)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        holder = {"what": activity, "process": os.getpid(), "host": socket.gethostname(), "since": since}
        file.write(json.dumps(holder))
        file.flush()
        yield


@contextlib.contextmanager
def wait_for_lock(lock: Path) -> Iterator[None]:
    """Holds a lock file in the block, after waiting for any other process of this machine that holds it.

    For work that continues from what the other process leaves: it waits inside a command, and the file is deleted.
    """
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


def _describe_holder(path: Path) -> str:
    try:
        holder = parse_json(path.read_bytes())
        return f"process {holder['process']} on {holder['host']} has been {holder['what']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process holds the lock"
