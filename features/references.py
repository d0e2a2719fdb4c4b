"""References: where an encoded image lies, in a directory or in an archive read in place, and how to read it.

Names in annotations are matched against what a walk found, never joined to a path, so no name leads outside.
"""

import mimetypes
import os
import stat
import threading
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from schemas.errors import RecordError, UsageError

MAX_IMAGE_BYTES = 256 << 20

_archive_lock = threading.Lock()


@dataclass(frozen=True)
class Reference:
    """One encoded image: a file, or a member of an archive.

    Args:
        location: str. Absolute path of the file or of the archive.
        member: str. Name within the archive; empty for a plain file.
    """

    location: str
    member: str = ""

    def read(self) -> bytes:
        """The encoded bytes; RecordError with stage `read` where they cannot be had."""
        try:
            return self._read_member() if self.member else _read_file(self.location)
        except FileNotFoundError as error:
            raise RecordError("read", "missing", self.label, permanent=False) from error
        except (OSError, RuntimeError, NotImplementedError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise RecordError("read", "unreadable", f"{self.label}: {error}", permanent=False) from error

    @property
    def label(self) -> str:
        """The reference as people write it."""
        return f"{self.location}/{self.member}" if self.member else self.location

    def _read_member(self) -> bytes:
        with _archive_lock:
            archive = open_zip(self.location)
            try:
                member = archive.open(self.member)
            except KeyError as error:
                raise FileNotFoundError(self.label) from error
        with member:
            return _within_limit(member.read(MAX_IMAGE_BYTES + 1), self.label)


@dataclass(frozen=True)
class Found:
    """What a walk found.

    Args:
        name: str. Path relative to what was walked, with slashes.
        reference: Reference. How to read it.
        size: int. Bytes, uncompressed.
        stamp: str. Changes whenever the content may have: times and inode of a file, checksum of a member.
        modified_ns: int. When the file or the archive last changed, nanoseconds since 1970.
    """

    name: str
    reference: Reference
    size: int
    stamp: str
    modified_ns: int


def walk(root: str) -> Iterator[Found]:
    """Everything in a directory or a zip archive, hidden files left out, in no particular order.

    Raises:
        UsageError: `root` is neither.
    """
    path = Path(root).absolute()
    if path.is_dir():
        yield from _walk_directory(path)
    elif path.is_file() and zipfile.is_zipfile(path):
        yield from _walk_zip(path)
    else:
        what = "neither a directory nor a zip archive" if path.exists() else "no such directory or archive"
        raise UsageError(what, where=str(root), mend="name the images' directory or .zip")


def is_image_name(name: str) -> bool:
    """Whether a file's suffix is one of an image format, supported or not."""
    return (mimetypes.guess_type(name)[0] or "").startswith("image/")


@lru_cache(maxsize=8)
def open_zip(location: str) -> zipfile.ZipFile:
    """The archive, kept open between reads."""
    return zipfile.ZipFile(location)


def _walk_directory(root: Path) -> Iterator[Found]:
    prefix = len(os.fspath(root)) + 1
    waiting = [os.fspath(root)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                    continue
                try:
                    status = entry.stat()
                except OSError:
                    continue
                if stat.S_ISREG(status.st_mode):
                    stamp = f"{status.st_mtime_ns}:{status.st_ctime_ns}:{status.st_ino}"
                    changed = max(status.st_mtime_ns, status.st_ctime_ns)
                    yield Found(entry.path[prefix:], Reference(entry.path), status.st_size, stamp, changed)


def _walk_zip(path: Path) -> Iterator[Found]:
    location = os.fspath(path)
    status = path.stat()
    open_zip.cache_clear()
    try:
        members = open_zip(location).infolist()
    except zipfile.BadZipFile as error:
        raise UsageError(f"the archive cannot be read: {error}", where=location) from error
    for member in members:
        name = member.filename
        if member.is_dir() or PurePosixPath(name).name.startswith(".") or name.startswith("__MACOSX/"):
            continue
        stamp = f"crc:{member.CRC:08x}:{status.st_ino}"
        yield Found(name, Reference(location, name), member.file_size, stamp, status.st_mtime_ns)


def _read_file(location: str) -> bytes:
    with Path(location).open("rb") as file:
        return _within_limit(file.read(MAX_IMAGE_BYTES + 1), location)


def _within_limit(data: bytes, label: str) -> bytes:
    if len(data) > MAX_IMAGE_BYTES:
        raise RecordError("read", "too large", f"{label}: more than {MAX_IMAGE_BYTES >> 20} MiB")
    return data
