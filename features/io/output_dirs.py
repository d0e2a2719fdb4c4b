"""Creates directories of generated data atomically."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from features.io.atomic_files import make_directory
from schemas.errors import UsageError


def make_folder(out: Path, message: str, holds: Callable[[Path], bool], write: Callable[[Path], None]) -> None:
    """Creates a directory that appears under its name once it is complete; keeps one that has these very data.

    Args:
        out: The directory. It must be missing, empty, or contain these very data.
        message: Description of the data, for the error.
        holds: Returns whether the directory contains the data; OSError, ValueError, KeyError and TypeError mean no.
        write: Writes the data into a new directory.

    Raises:
        UsageError: The directory contains something else.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        try:
            is_same = holds(out)
        except (OSError, ValueError, KeyError, TypeError):
            is_same = False
        if not is_same:
            raise UsageError(
                f"the directory contains something else than {message}",
                location=str(out),
                hint="Choose a directory that does not exist yet.",
            )
        return
    make_directory(out.parent)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as parent:
        temporary = Path(parent) / out.name
        temporary.mkdir()
        write(temporary)
        temporary.rename(out)
