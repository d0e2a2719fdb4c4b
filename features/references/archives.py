"""Archives: a file's format, told by its first bytes, and its members."""

import tarfile
import threading
import zipfile
from functools import lru_cache
from pathlib import PurePosixPath

from features.io.open_files import open_file
from features.references.archive_members import Archive
from features.references.compression import unpack_command
from features.references.tars import BLOCK, Tar
from features.references.zips import Zip
from schemas.errors import UsageError

_KINDS = "neither a directory nor a zip archive or tar that is whole"

_lock = threading.Lock()


def open_archive(location: str, *, anew: bool = False) -> Archive:
    """An archive, remembered between calls.

    Args:
        location: str. Path or address of a file.
        anew: bool. Whether to forget all that is remembered.

    Raises:
        UsageError: it is none that can be read in place.
        OSError: nothing is there, or cannot be reached.
    """
    with _lock:
        if anew:
            _opened.cache_clear()
        return _opened(location)


@lru_cache(maxsize=8)
def _opened(location: str) -> Archive:
    with open_file(location) as file:
        start = file.read(BLOCK)
        if command := unpack_command(start):
            message = "a compressed file is not read in place"
            raise UsageError(message, location=location, hint=f"{command} {PurePosixPath(location).name} first")
        if _is_tar(start):
            return Tar(location)
        if not zipfile.is_zipfile(file):
            raise UsageError(_KINDS, location=location, hint="name a directory, a .zip or a .tar")
    return Zip(location)


def _is_tar(start: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # The end of an archive without members.
        return True
    except tarfile.HeaderError:
        return False
    return True
