"""Folders of made data: whole or absent, and left as they are where they hold that very data already."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from features.io.atomic_files import make_directory
from schemas.errors import UsageError


def make_folder(out: Path, message: str, holds: Callable[[Path], bool], write: Callable[[Path], None]) -> None:
    """Make a folder that appears under its name once it is complete.

    Args:
        out: Path. The folder; it does not exist yet, is empty, or holds this very data.
        message: str. The data in words, for the message.
        holds: function of a path. Whether the folder there holds the data; what it raises of OSError, ValueError,
            KeyError and TypeError says no.
        write: function of a path. Writes the data into the new folder there.

    Raises: UsageError where the folder holds something else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        _write_aside(out, write)
    elif not _says_yes(holds, out):
        raise UsageError(
            f"holds something else than {message}", location=str(out), hint="name a folder that does not exist yet"
        )


def _says_yes(holds: Callable[[Path], bool], out: Path) -> bool:
    try:
        return holds(out)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write_aside(out: Path, write: Callable[[Path], None]) -> None:
    make_directory(out.parent)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as temporary:
        made = Path(temporary) / out.name
        made.mkdir()
        write(made)
        made.rename(out)
