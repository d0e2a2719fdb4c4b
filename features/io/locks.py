"""Locks: one process at a time; who comes later is told who holds it. A lock ends with its process, however it ends."""

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
def hold_lock(path: Path, message: str) -> Iterator[None]:
    """Hold the lock at `path` while the block runs.

    Args:
        path: Path. The lock's file; it stays, and says who held it last.
        message: str. What its holder is doing, for those who come later.

    Raises:
        LockedError: another process holds it; it says which, where and since when.
    """
    make_directory(path.parent)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockedError(_holder(path), location=str(path), hint="wait for it") from None
        file.truncate(0)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        file.write(json.dumps({"what": message, "process": os.getpid(), "host": socket.gethostname(), "since": since}))
        file.flush()
        yield


def _holder(path: Path) -> str:
    try:
        holder = parse_json(path.read_bytes())
        return f"process {holder['process']} on {holder['host']} has been {holder['what']} since {holder['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process holds the lock"
