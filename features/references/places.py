"""Places: files by path or by address, opened alike."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from features.references import buckets
from features.references.limits import check_size, read_within
from features.references.names import is_address

_BUFFER = 128 << 10


@dataclass(frozen=True)
class State:
    """What tells whether an archive is still the same.

    Args:
        modified_ns: int. When it last changed, nanoseconds since 1970.
        identity: str. Which file it is: its inode, or an object's entity tag or generation.
        version: str. Which state of the file it is: the identity with its times and size.
    """

    modified_ns: int
    identity: str
    version: str


def open_place(location: str, buffer: int = _BUFFER) -> BinaryIO:
    """A file opened for reading at any place in it.

    Args:
        location: str. Path or address.
        buffer: int. Bytes asked for at once.

    Raises:
        FileNotFoundError: nothing is there.
        OSError: it cannot be reached.
    """
    return buckets.open_object(location, buffer) if is_address(location) else Path(location).open("rb", buffer)


def read_place(location: str, max_bytes: int) -> bytes:
    """All bytes of a file, `max_bytes` at most.

    Raises:
        RecordError: there are more.
        OSError: as `open_place`.
    """
    with open_place(location) as file:
        check_size(file.seek(0, os.SEEK_END), location, max_bytes)
        file.seek(0)
        return read_within(file, location, max_bytes)


def state_of(location: str) -> State:
    """The state of a file that is there."""
    if is_address(location):
        found, tag = buckets.look(location), buckets.entity_tag(location)
        return State(found.modified_ns, tag, f"{found.modified_ns}:{found.size}:{tag}")
    status = Path(location).stat()
    version = f"{status.st_mtime_ns}:{status.st_ctime_ns}:{status.st_ino}"
    return State(max(status.st_mtime_ns, status.st_ctime_ns), str(status.st_ino), version)
