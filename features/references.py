"""References: where an encoded image lies, in a directory or in an archive read in place, and how to read it.

Names in annotations are matched against what a walk found, never joined to a path, so no name leads outside, and
nothing is unpacked onto the disk. In a directory, links to files are followed, wherever they lead: whoever made the
folder made them, and shared disks are full of such folders. Links to directories are not, so that no walk runs in
circles or leaves its tree. In an archive a link is a failure, and of several members with one name the last counts.
"""

import logging
import mimetypes
import os
import re
import stat
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from schemas.errors import CaptError, RecordError, UsageError

MAX_IMAGE_BYTES = 256 << 20

_log = logging.getLogger("capt.references")

_ESCAPED = re.compile(r"\\x[0-9a-f]{2}")
# zipfile unpacks the others without a bound on the memory that it takes.
_UNPACKED = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_LOCAL_HEADER = 30
_NOTHING = "no such directory or archive"

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

    def read(self, max_bytes: int = MAX_IMAGE_BYTES) -> bytes:
        """The encoded bytes.

        Args:
            max_bytes: int. More are refused by their declared number, before they are read or unpacked.

        Raises:
            RecordError: stage `read`, with one of the reasons `missing`, `name is not UTF-8`, `too large`, `encrypted`,
                `symbolic link`, `unsupported compression` and `unreadable`; none permanent, for other bytes may lie
                there tomorrow.
        """
        try:
            return self._read_member(max_bytes) if self.member else _read_file(self.location, max_bytes)
        except RecordError:
            raise
        except FileNotFoundError as error:
            reason = "name is not UTF-8" if _ESCAPED.search(self.location) and not self.member else "missing"
            raise RecordError("read", reason, self.label, permanent=False) from error
        except Exception as error:  # zipfile raises nearly any class on archives that were made to confuse it.
            raise RecordError("read", "unreadable", f"{self.label}: {error}", permanent=False) from error

    @property
    def label(self) -> str:
        """The reference as people write it."""
        return f"{self.location}/{self.member}" if self.member else self.location

    def _read_member(self, max_bytes: int) -> bytes:
        with _archive_lock:
            archive = open_zip(self.location)
            try:
                info = archive.getinfo(self.member)
            except KeyError as error:
                raise FileNotFoundError(self.label) from error
            _check_member(info, self.label, max_bytes)
            member = archive.open(info)
        with member:
            return _within_limit(member.read(max_bytes + 1), self.label, max_bytes)


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
    if _printable(os.fspath(path)) != os.fspath(path):
        raise UsageError("the path is not UTF-8", where=_printable(os.fspath(path)), mend="rename it")
    if path.is_dir():
        yield from _walk_directory(path)
    elif path.is_file() and zipfile.is_zipfile(path):
        yield from _walk_zip(path)
    else:
        what = "neither a directory nor a zip archive that is whole" if path.exists() else _NOTHING
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
        with _scan(waiting.pop()) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif found := _found_file(entry, prefix):
                    yield found


def _scan(directory: str) -> "os._ScandirIterator[str]":
    try:
        return os.scandir(directory)
    except OSError as error:
        raise CaptError(f"the directory cannot be read: {error.strerror}", where=_printable(directory)) from error


def _found_file(entry: "os.DirEntry[str]", prefix: int) -> Found | None:
    """The file, also where a link leads to nothing, so that it fails as missing; None for what is no file."""
    path = _printable(entry.path)
    name = path[prefix:]
    try:
        status = entry.stat()
    except OSError:
        return Found(name, Reference(path), 0, "", 0)
    if stat.S_ISDIR(status.st_mode):
        _log.warning("%s: a link to a directory is not followed", path)
    if not stat.S_ISREG(status.st_mode):
        return None
    stamp = f"{status.st_mtime_ns}:{status.st_ctime_ns}:{status.st_ino}"
    return Found(name, Reference(path), status.st_size, stamp, max(status.st_mtime_ns, status.st_ctime_ns))


def _printable(path: str) -> str:
    """The path as text: bytes that are not UTF-8, which no table can hold, written in hexadecimal."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _walk_zip(path: Path) -> Iterator[Found]:
    location = os.fspath(path)
    status = path.stat()
    open_zip.cache_clear()
    try:
        members = open_zip(location).infolist()
    except Exception as error:  # As on reading a member.
        raise UsageError(f"the archive cannot be read: {error}", where=location) from error
    _check_overlap(members, location)
    last = {member.filename: member for member in members}
    if len(last) < len(members):
        _log.warning("%s: %d names occur again; the last of each counts", location, len(members) - len(last))
    for name, member in last.items():
        if not name or name.endswith("/") or PurePosixPath(name).name.startswith(".") or name.startswith("__MACOSX/"):
            continue
        stamp = f"crc:{member.CRC:08x}:{status.st_ino}"
        yield Found(name, Reference(location, name), member.file_size, stamp, status.st_mtime_ns)


def _check_overlap(members: list[zipfile.ZipInfo], location: str) -> None:
    """UsageError where members share bytes of the archive, by which a small one unpacks to any size."""
    end = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        if member.header_offset < end:
            raise UsageError("the archive's members overlap, as a zip bomb's do", where=f"{location}/{member.filename}")
        end = member.header_offset + _LOCAL_HEADER + member.compress_size


def _check_member(info: zipfile.ZipInfo, label: str, max_bytes: int) -> None:
    if info.flag_bits & 1:
        raise RecordError("read", "encrypted", label, permanent=False)
    if stat.S_ISLNK(info.external_attr >> 16):
        raise RecordError("read", "symbolic link", label, permanent=False)
    if info.compress_type not in _UNPACKED:
        raise RecordError("read", "unsupported compression", f"{label}: method {info.compress_type}", permanent=False)
    if info.file_size > max_bytes:
        raise _too_large(label, max_bytes)


def _read_file(location: str, max_bytes: int) -> bytes:
    with Path(location).open("rb") as file:
        if os.fstat(file.fileno()).st_size > max_bytes:
            raise _too_large(location, max_bytes)
        return _within_limit(file.read(max_bytes + 1), location, max_bytes)


def _within_limit(data: bytes, label: str, max_bytes: int) -> bytes:
    if len(data) > max_bytes:
        raise _too_large(label, max_bytes)
    return data


def _too_large(label: str, max_bytes: int) -> RecordError:
    return RecordError("read", "too large", f"{label}: more than {max_bytes} bytes", permanent=False)
