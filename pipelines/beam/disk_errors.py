"""Reports a full disk as one error, for every library that may run out of space."""

import contextlib
import errno
import re
import sqlite3
from collections.abc import Iterator

from schemas.errors import CaptError

_FULL = (errno.ENOSPC, errno.EDQUOT)
# Matches the text of an error from a worker, which sends text only.
_FULL_TEXT = re.compile(rf"\[errno ({'|'.join(map(str, _FULL))})\]", re.IGNORECASE)


@contextlib.contextmanager
def report_full_disk(location: str) -> Iterator[None]:
    """Turns the error of a full disk in the block into a `CaptError` about `location`."""
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        if not is_full_disk(error):
            raise
        hint = "Free some space and run the same command again. It resumes from the finished work."
        raise CaptError("no space is left on the disk", location=location, hint=hint) from error


def is_full_disk(error: Exception) -> bool:
    """Returns whether an error, or the text of a worker's error, means that the disk is full."""
    if isinstance(error, sqlite3.OperationalError):
        return "disk is full" in str(error)
    return getattr(error, "errno", None) in _FULL or bool(_FULL_TEXT.search(str(error)))
