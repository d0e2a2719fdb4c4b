"""Reports a damaged file of a run or an evaluation as such, and not as an error of capt."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from schemas.errors import CorruptFileError


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Wraps the code that reads a file of a run or an evaluation.

    Args:
        path: The file.

    Raises:
        CorruptFileError: The code raised ValueError, KeyError, TypeError or AttributeError.
    """
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"damaged: {type(error).__name__} while it was read"
        raise CorruptFileError(message, location=str(path), hint="evaluate the run again") from error
