"""Recognizes compressed files by their first bytes, and unpacks gzip within a limit."""

import gzip
import io
import re
import zlib

from features.io.open_files import read_within
from schemas.errors import RecordError

_COMMANDS = {
    re.compile(rb"\x1f\x8b"): "gunzip",
    re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", re.DOTALL): "bunzip2",
    re.compile(rb"\xfd7zXZ\0"): "unxz",
    re.compile(rb"\x28\xb5\x2f\xfd"): "unzstd",
}


def find_unpack_command(start: bytes) -> str | None:
    """Returns the command that unpacks a file, such as `bunzip2`, by its first ten bytes; None if not compressed."""
    return next((command for magic, command in _COMMANDS.items() if magic.match(start)), None)


def gunzip_within(data: bytes, label: str, max_bytes: int) -> bytes:
    """Unpacks gzip, also several concatenated parts.

    Args:
        data: The compressed bytes.
        label: Name of the file in messages.
        max_bytes: Maximum number of unpacked bytes.

    Raises:
        RecordError: The unpacked bytes exceed the limit (`too large`), or the compressed ones are corrupt or incomplete
            (`unreadable`).
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            return read_within(file, label, max_bytes)
    except (OSError, EOFError, zlib.error) as error:
        raise RecordError("read", "unreadable", f"{label}: corrupt gzip data: {error}", permanent=False) from error
