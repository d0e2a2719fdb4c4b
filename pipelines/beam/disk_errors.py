"""A full disk: one line that says so, whichever of the libraries ran out of space."""

import contextlib
import errno
import re
import sqlite3
from collections.abc import Iterator

from schemas.errors import CaptError

_FULL = (errno.ENOSPC, errno.EDQUOT)
# What the text of an error says that came from a worker, which sends no more than text.
_SAYS_FULL = re.compile(rf"\[errno ({'|'.join(map(str, _FULL))})\]", re.IGNORECASE)


@contextlib.contextmanager
def report_full_disk(location: str) -> Iterator[None]:
    """Turn an error of a full disk into CaptError.

    Args:
        location: str. What lies on the disk.
    """
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        if not is_full_disk(error):
            raise
        raise CaptError(
            "no space is left on the disk",
            location=location,
            hint="free some and run the same command again: what is finished is kept",
        ) from error


def is_full_disk(error: Exception) -> bool:
    """Whether an error, or the text of one that a worker sent, is that of a full disk."""
    if isinstance(error, sqlite3.OperationalError):
        return "disk is full" in str(error)
    return getattr(error, "errno", None) in _FULL or bool(_SAYS_FULL.search(str(error)))
