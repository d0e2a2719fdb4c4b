"""Checks the path of an HTML page, and writes the page."""

from pathlib import Path

from features.io.atomic_files import write
from features.io.locations import local_path
from schemas.errors import CaptError, UsageError


def check_page_path(page: str | Path, option: str) -> Path:
    """Returns the path of a page to write. Raises UsageError if it is a URI or a directory; `option` names it."""
    path = local_path(page, option)
    if path.is_dir():
        raise UsageError("this is a directory", location=f"{option} {page}", hint="Choose a file, such as page.html.")
    return path


def write_page(path: Path, page: str) -> None:
    """Writes a page atomically; CaptError if that is not possible."""
    try:
        write(path, page.encode())
    except OSError as error:
        raise CaptError(f"the page cannot be written: {error.strerror}", location=str(path)) from None
