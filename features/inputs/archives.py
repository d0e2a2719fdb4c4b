"""Opens archives, whose first bytes determine the format, and unpacks gzip within a limit."""

import gzip
import io
import re
import tarfile
import threading
import zipfile
import zlib
from functools import lru_cache
from pathlib import PurePosixPath

from features.inputs.tars import BLOCK_BYTES, Tar
from features.inputs.zips import Zip
from features.io.open_files import open_file, read_within
from schemas.errors import RecordError, UsageError

_UNPACK_COMMANDS = {
    re.compile(rb"\x1f\x8b"): "gunzip",
    re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", re.DOTALL): "bunzip2",
    re.compile(rb"\xfd7zXZ\0"): "unxz",
    re.compile(rb"\x28\xb5\x2f\xfd"): "unzstd",
}

_lock = threading.Lock()


def open_archive(location: str, *, reopen: bool = False) -> Tar | Zip:
    """Opens the archive at a path or URI; later calls return the same object. `reopen` closes all archives first.

    Raises:
        UsageError: The file is not an archive, or cannot be read in place.
        OSError: The file is missing or cannot be read.
    """
    with _lock:
        if reopen:
            _open_cached.cache_clear()
        return _open_cached(location)


@lru_cache(maxsize=8)
def _open_cached(location: str) -> Tar | Zip:
    with open_file(location) as file:
        start = file.read(BLOCK_BYTES)
        if command := find_unpack_command(start):
            hint = f"Run {command} {PurePosixPath(location).name} first."
            raise UsageError("a compressed file cannot be read in place", location=location, hint=hint)
        if _is_tar(start):
            return Tar(location)
        if not zipfile.is_zipfile(file):
            message = "neither a directory nor a complete zip or tar archive"
            raise UsageError(message, location=location, hint="Choose a directory, a .zip or a .tar.")
    return Zip(location)


def _is_tar(start: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(start, "utf-8", "surrogateescape")
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # an archive without members
        return True
    except tarfile.HeaderError:
        return False
    return True


def find_unpack_command(start: bytes) -> str | None:
    """Returns the command that unpacks a file, such as `bunzip2`, by its first ten bytes; None if not compressed."""
    return next((command for magic, command in _UNPACK_COMMANDS.items() if magic.match(start)), None)


def gunzip_within(data: bytes, label: str, max_bytes: int) -> bytes:
    """Unpacks gzip, also several concatenated parts, of a file that messages call `label`.

    Raises:
        RecordError: The unpacked bytes exceed the limit (`too large`), or the compressed ones are corrupt or incomplete
            (`unreadable`).
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            return read_within(file, label, max_bytes)
    except (OSError, EOFError, zlib.error) as error:
        raise RecordError("read", "unreadable", f"{label}: corrupt gzip data: {error}", permanent=False) from error
