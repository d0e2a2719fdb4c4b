"""Opens and reads local files and objects, within limits."""

import errno
import os
import stat
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import IO, BinaryIO

from features.io import objects
from features.io.uris import is_uri
from schemas.errors import CaptError, RecordError

_BUFFER_BYTES = 128 << 10


@dataclass(frozen=True)
class FileState:
    """The state of a file, which differs if the file has changed."""

    modified_ns: int  # time of the last change, since 1970
    identity: str  # inode, or the object's entity tag or generation
    version: str  # the identity with times and size


def open_file(location: str, buffer_size: int = _BUFFER_BYTES) -> BinaryIO:
    """Opens a file or object for random access, in requests of at least `buffer_size` bytes.

    Raises:
        OSError: The file does not exist (FileNotFoundError), cannot be read, or is a pipe or device.
        CaptError: The service cannot be reached.
    """
    if is_uri(location):
        return objects.open_object(location, buffer_size)
    path = Path(location)
    # Opening a pipe without a writer would wait forever.
    if stat.S_IFMT(path.stat().st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
        raise OSError(errno.ESPIPE, "it is a pipe or device, not a file", location)
    return path.open("rb", buffer_size)


def read_file(location: str, max_bytes: int) -> bytes:
    """Reads a file or object; raises as `open_file`, and RecordError (`too large`) for more than `max_bytes`."""
    if is_uri(location):
        bucket, key = objects.open_bucket(location)
        data = bucket.read_within(key, max_bytes)
        check_size(max_bytes + 1 if data is None else len(data), location, max_bytes)
        return data or b""
    with open_file(location) as file:
        check_size(file.seek(0, os.SEEK_END), location, max_bytes)
        file.seek(0)
        return read_within(file, location, max_bytes)


def stat_file(location: str) -> FileState:
    """Returns the state of a file or object; raises as `open_file`."""
    if is_uri(location):
        info = objects.stat_object(location)
        return FileState(info.modified_ns, info.tag, f"{info.modified_ns}:{info.size}:{info.tag}")
    status = Path(location).stat()
    version = f"{status.st_mtime_ns}:{status.st_ctime_ns}:{status.st_ino}"
    return FileState(max(status.st_mtime_ns, status.st_ctime_ns), str(status.st_ino), version)


def raise_system_error(error: Exception, location: str) -> None:
    """Raises CaptError for an error of the system, such as a missing permission, but not for corrupt data."""
    if isinstance(error, OSError) and error.errno is not None:
        raise CaptError(f"the file cannot be read: {error.strerror or error}", location=location) from error


def check_size(size: int, label: str, max_bytes: int) -> None:
    """Raises RecordError (`too large`) if the declared size exceeds `max_bytes`."""
    if size > max_bytes:
        raise RecordError("read", "too large", f"{label}: more than {max_bytes} bytes", permanent=False)


def read_within(file: IO[bytes] | BufferedIOBase, label: str, max_bytes: int) -> bytes:
    """Reads the rest of a file, whatever size it declares; RecordError (`too large`) for more than `max_bytes`."""
    data = file.read(max_bytes + 1)
    check_size(len(data), label, max_bytes)
    return data
