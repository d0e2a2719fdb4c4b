"""Locks files so that one process works at a time. A lock ends with its process, also if it is killed."""

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from features.io.atomic_files import make_directory
from schemas.errors import CaptError, ExitCode
from schemas.strict_json import parse_json


class LockedError(CaptError):
    """Another process holds the lock."""

    exit_code = ExitCode.LOCKED


@contextlib.contextmanager
def hold_lock(path: Path, activity: str) -> Iterator[None]:
    """Holds the lock file `path`, which names its last holder and is not deleted, while the block runs.

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


def _describe_holder(path: Path) -> str:
    try:
        holder = parse_json(path.read_bytes())
        return f"process {holder['process']} on {holder['host']} has been {holder['what']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process holds the lock"
