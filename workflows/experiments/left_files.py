"""Tells damage to files that a run or an evaluation left from an error of capt."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from schemas.errors import DamagedError


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """A block that reads a file which a run or an evaluation left.

    Args:
        path: The file.

    Raises:
        DamagedError: The block raised ValueError, KeyError, TypeError or AttributeError.
    """
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"damaged: {type(error).__name__} while it was read"
        raise DamagedError(what, where=str(path), mend="evaluate the run again") from error
