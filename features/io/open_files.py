"""Places: files by path or by address, opened alike."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from features.io import bucket_listing
from features.io.read_limits import check_size, read_within
from features.io.uris import is_uri

_BUFFER = 128 << 10


@dataclass(frozen=True)
class FileState:
    """What tells whether an archive is still the same.

    Args:
        modified_ns: int. When it last changed, nanoseconds since 1970.
        identity: str. Which file it is: its inode, or an object's entity tag or generation.
        version: str. Which state of the file it is: the identity with its times and size.
    """

    modified_ns: int
    identity: str
    version: str


def open_file(location: str, buffer: int = _BUFFER) -> BinaryIO:
    """A file opened for reading at any place in it.

    Args:
        location: str. Path or address.
        buffer: int. Bytes asked for at once.

    Raises:
        FileNotFoundError: nothing is there.
        OSError: it cannot be reached.
    """
    return bucket_listing.open_object(location, buffer) if is_uri(location) else Path(location).open("rb", buffer)


def read_file(location: str, max_bytes: int) -> bytes:
    """All bytes of a file, `max_bytes` at most.

    Raises:
        RecordError: there are more.
        OSError: as `open_place`.
    """
    with open_file(location) as file:
        check_size(file.seek(0, os.SEEK_END), location, max_bytes)
        file.seek(0)
        return read_within(file, location, max_bytes)


def stat_file(location: str) -> FileState:
    """The state of a file that is there."""
    if is_uri(location):
        found, tag = bucket_listing.stat_object(location), bucket_listing.entity_tag(location)
        return FileState(found.modified_ns, tag, f"{found.modified_ns}:{found.size}:{tag}")
    status = Path(location).stat()
    version = f"{status.st_mtime_ns}:{status.st_ctime_ns}:{status.st_ino}"
    return FileState(max(status.st_mtime_ns, status.st_ctime_ns), str(status.st_ino), version)
