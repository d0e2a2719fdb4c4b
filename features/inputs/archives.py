"""Opens archives. Their first bytes determine the format."""

import tarfile
import threading
import zipfile
from functools import lru_cache
from pathlib import PurePosixPath

from features.inputs.archive_members import Archive
from features.inputs.compression import find_unpack_command
from features.inputs.tars import BLOCK_BYTES, Tar
from features.inputs.zips import Zip
from features.io.open_files import open_file
from schemas.errors import UsageError

_lock = threading.Lock()


def open_archive(location: str, *, reopen: bool = False) -> Archive:
    """Opens an archive; later calls return the same object.

    Args:
        location: Path or URI of a file.
        reopen: Whether to close all open archives first.

    Raises:
        UsageError: The file is not an archive, or cannot be read in place.
        OSError: The file is missing or cannot be read.
    """
    with _lock:
        if reopen:
            _open_cached.cache_clear()
        return _open_cached(location)


@lru_cache(maxsize=8)
def _open_cached(location: str) -> Archive:
    with open_file(location) as file:
        start = file.read(BLOCK_BYTES)
        if command := find_unpack_command(start):
            raise UsageError(
                "a compressed file cannot be read in place",
                location=location,
                hint=f"Run {command} {PurePosixPath(location).name} first.",
            )
        if _is_tar(start):
            return Tar(location)
        if not zipfile.is_zipfile(file):
            raise UsageError(
                "neither a directory nor a complete zip or tar archive",
                location=location,
                hint="Choose a directory, a .zip or a .tar.",
            )
    return Zip(location)


def _is_tar(start: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # an archive without members
        return True
    except tarfile.HeaderError:
        return False
    return True
