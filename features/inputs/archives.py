"""Opens tar and zip archives, and Parquet files, in place; their first bytes determine the format. Unpacks gzip."""

import contextlib
import gzip
import io
import logging
import re
import sqlite3
import stat
import struct
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING, BinaryIO

from features.io.open_files import FileState, check_size, open_file, read_within
from schemas.errors import CaptError, RecordError, UsageError

if TYPE_CHECKING:
    from features.inputs.parquet_rows import ParquetRows

_MAX_SIZE = (1 << 63) - 1  # Tables store signed 64-bit integers; an archive may declare more.
_ESCAPED = re.compile(r"\\x[0-9a-f]{2}")
_CURRENT_DIRECTORY = re.compile(r"(\./+)+")
_BLOCK_BYTES = tarfile.BLOCKSIZE
_TAR_MEMBER = re.compile(r"(?s)(.+)@(\d{1,18})")
_MAX_HEADER_BYTES = 1 << 20
_MAX_GLOBAL_HEADERS = 1000
# Over a network, one request per header takes longer than reading the small members between them.
_LISTING_BUFFER_BYTES = 4 << 20
# zipfile unpacks other methods in unbounded memory.
_ZIP_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ZIP_HEADER_BYTES = 30
_PARQUET_MAGIC = b"PAR1"
_ZIP_UTF8_FLAG = 0x800
# The Unicode path field: version, CRC-32 of the raw name, name in UTF-8.
_ZIP_FIELD_HEADER = struct.Struct("<HH")
_ZIP_UNICODE_PATH = 0x7075
_ZIP_UNICODE_PATH_START = struct.Struct("<BI")

_UNPACK_COMMANDS = {
    re.compile(rb"\x1f\x8b"): "gunzip",
    re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)", re.DOTALL): "bunzip2",
    re.compile(rb"\xfd7zXZ\0"): "unxz",
    re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18", re.DOTALL): "unzstd",  # or a skippable frame
}

_lock = threading.Lock()
_log = logging.getLogger("capt.inputs")


@dataclass(frozen=True)
class ArchiveMember:
    """A file in an archive."""

    name: str  # in a listing
    member: str  # key of the file in the archive; contains at least the name
    size: int  # declared number of unpacked bytes, at most `_MAX_SIZE`
    stamp: str  # differs whenever the contents may have changed
    has_known_name: bool = True  # whether the encoding of the name is known, so that it is the name that was packed


def escape_bytes(path: str) -> str:
    r"""Returns a path as text: bytes that are not UTF-8, which no table can store, become `\xNN`."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def has_escaped_bytes(path: str) -> bool:
    r"""Returns whether a path contains `\xNN`, so that its encoding may be unknown."""
    return _ESCAPED.search(path) is not None


def listed_name(member: str) -> str | None:
    """Returns the name of an archive member, or of an object below a prefix, in a listing, without a leading `./`.

    Directories and hidden files (a part begins with a dot, or the first one is `__MACOSX`) have none.
    """
    prefix = _CURRENT_DIRECTORY.match(member)
    name = member[prefix.end() :] if prefix else member
    parts = name.split("/")
    is_hidden = any(part.startswith(".") and part not in (".", "..") for part in parts)
    return None if is_hidden or not parts[-1] or parts[0] == "__MACOSX" else name


def open_archive(location: str) -> "Tar | Zip | ParquetRows":
    """Opens the archive at a path or URI; later calls return the same object."""
    with _lock:
        return _open_cached(location)


def close_archives() -> None:
    """Closes all archives that this process has open, because their files may have been replaced."""
    with _lock:
        _open_cached.cache_clear()


@lru_cache(maxsize=8)
def _open_cached(location: str) -> "Tar | Zip | ParquetRows":
    with open_file(location) as file:
        start = file.read(_BLOCK_BYTES)
        if command := find_unpack_command(start):
            hint = f"Run {command} {PurePosixPath(location).name} first."
            raise UsageError("a compressed file cannot be read in place", location=location, hint=hint)
        if start.startswith(_PARQUET_MAGIC):
            from features.inputs.parquet_rows import ParquetRows  # PyArrow takes long to import

            try:
                return ParquetRows(location)
            except RecordError as error:
                message = "the Parquet file is corrupt or incomplete"
                raise UsageError(message, location=location, hint="Download or write it again.") from error
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


# === Tar ===


class Tar:
    """A tar archive at a path or URI: ustar, GNU or pax. Any class of error can mean that it is hostile.

    A member is found by its name, `@` and the offset of its header, `images/a.jpg@1536`, so that a worker reads it
    without searching the archive. The header at this offset must still have the name.

    Format: https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html
    """

    def __init__(self, location: str) -> None:
        self._location = location

    def list_members(self, state: FileState) -> Iterator[ArchiveMember]:
        """Yields the files and links, each name once, after one pass over the headers; names are stored on disk.

        Raises:
            UsageError: The archive is corrupt or incomplete.
        """
        with contextlib.closing(sqlite3.connect("")) as database:
            database.execute("CREATE TABLE member (name TEXT PRIMARY KEY, member, size, stamp, known) WITHOUT ROWID")
            try:
                inserted = database.executemany(
                    "INSERT OR REPLACE INTO member VALUES (?, ?, ?, ?, ?)", self._read_rows(state.version)
                )
            except Exception as error:  # tarfile raises errors of many classes for hostile archives.
                message = f"the tar archive is corrupt or incomplete: {error}"
                raise UsageError(message, location=self._location, hint="Download or pack it again.") from error
            (count,) = database.execute("SELECT count(*) FROM member").fetchone()
            if repeated := inserted.rowcount - count:
                _log.warning("%s: %d repeated names. The last member with each name is used.", self._location, repeated)
            rows = database.execute("SELECT name, member, size, stamp, known FROM member")
            for name, member, size, stamp, is_known in rows:
                yield ArchiveMember(name, member, size, stamp, bool(is_known))

    def read_in_order(
        self, state: FileState, is_wanted: Callable[[str], bool], max_bytes: int
    ) -> Iterator[tuple[ArchiveMember, bytes | RecordError | None]]:
        """Yields the files and links in the order of the archive, also repeated names, in one pass.

        Each comes with its bytes if `is_wanted` by its name, or with the error that prevents reading it, which is that
        of `FileReference.read`.

        Raises:
            RecordError: The archive is corrupt or incomplete; what comes before has been yielded.
        """
        with self._open_headers() as (file, headers):
            for info in headers:
                member = _describe_member(info, state.version)
                if member:
                    wanted = is_wanted(member.name)
                    yield member, _read_member(file, info, member.name, max_bytes) if wanted else None

    def read_plain_files(
        self, is_wanted: Callable[[str], bool], max_bytes: int
    ) -> Iterator[tuple[str, bytes | RecordError | None]]:
        """Yields the plain files, also hidden ones, by the names in their headers; else as `read_in_order`.

        Bytes of a name that are not UTF-8 are surrogates.
        """
        with self._open_headers() as (file, headers):
            for info in filter(tarfile.TarInfo.isreg, headers):
                label = escape_bytes(info.name)
                yield info.name, _read_member(file, info, label, max_bytes) if is_wanted(info.name) else None

    def read(self, member: str, label: str, max_bytes: int) -> bytes:
        """Reads a member that messages call `label`; its declared size is checked before anything is read.

        Raises:
            RecordError: As raised by `FileReference.read`.
            FileNotFoundError: The member does not exist.
        """
        with open_file(self._location) as file:
            size = _seek_data(file, member, label)
            check_size(size, label, max_bytes)
            data = file.read(size)
        if len(data) != size:
            raise EOFError("the archive ends within this member")
        return data

    def read_start(self, member: str, label: str, size: int) -> bytes:
        """Reads at most the first `size` bytes of a member; raises as `read`."""
        with open_file(self._location) as file:
            return file.read(min(size, _seek_data(file, member, label)))

    @contextlib.contextmanager
    def _open_headers(self) -> Iterator[tuple[BinaryIO, Iterator[tarfile.TarInfo]]]:
        """Yields the open archive and its headers; raises RecordError if it is corrupt or incomplete."""
        try:
            with open_file(self._location, _LISTING_BUFFER_BYTES) as file:
                yield file, _read_headers(file)
        except CaptError:
            raise
        except Exception as error:  # as in `list_members`
            raise RecordError("read", "incomplete archive", f"{self._location}: {error}", permanent=False) from error

    def _read_rows(self, version: str) -> Iterator[tuple[str, str, int, str, bool]]:
        with open_file(self._location, _LISTING_BUFFER_BYTES) as file:
            for info in _read_headers(file):
                if member := _describe_member(info, version):
                    yield member.name, member.member, member.size, member.stamp, member.has_known_name


class _HeaderFile(io.BufferedIOBase):
    """The file that tarfile reads headers from; it limits their size, so that memory stays bounded."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header declares {size} bytes")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _seek_data(file: BinaryIO, member: str, label: str) -> int:
    """Seeks to the data of a member and returns its number of bytes."""
    match = _TAR_MEMBER.fullmatch(member)
    if match is None:
        raise FileNotFoundError(label)
    file.seek(int(match[2]))
    info = tarfile.TarFile(fileobj=_HeaderFile(file)).next()
    if info is None or escape_bytes(info.name) != match[1]:
        raise FileNotFoundError(label)
    _check_kind(info, label)
    file.seek(info.offset_data)
    return info.size


def _check_kind(info: tarfile.TarInfo, label: str) -> None:
    """Raises RecordError if a member is not a plain file."""
    kinds = {"symbolic link": info.issym(), "hard link": info.islnk(), "sparse": info.issparse()}
    if reason := next((kind for kind, is_found in kinds.items() if is_found), None):
        raise RecordError("read", reason, label, permanent=False)
    if not info.isreg() or info.size < 0:
        raise RecordError("read", "unreadable", f"{label}: not a file", permanent=False)


def _describe_member(info: tarfile.TarInfo, version: str) -> ArchiveMember | None:
    """Returns the member of a header in an archive of this version; None if a listing does not contain it."""
    path = escape_bytes(info.name)
    name = listed_name(path)
    if not name or not (info.isreg() or info.issym() or info.islnk()):
        return None
    stamp = f"tar:{info.offset}:{info.size}:{info.mtime}:{version}"
    return ArchiveMember(name, f"{path}@{info.offset}", info.size, stamp, path == info.name)


def _read_member(file: BinaryIO, info: tarfile.TarInfo, label: str, max_bytes: int) -> bytes | RecordError:
    try:
        _check_kind(info, label)
        check_size(info.size, label, max_bytes)
    except RecordError as error:
        return error
    file.seek(info.offset_data)
    data = file.read(info.size)
    if len(data) != info.size:
        return RecordError("read", "unreadable", f"{label}: the archive ends within this member", permanent=False)
    return data


def _read_headers(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Yields the headers of an archive; raises tarfile.ReadError if it is truncated or corrupt."""
    archive = tarfile.TarFile(fileobj=_HeaderFile(file))
    end = 0
    while info := archive.next():
        if len(archive.pax_headers) > _MAX_GLOBAL_HEADERS:  # Each member gets a copy of them.
            raise tarfile.ReadError(f"more than {_MAX_GLOBAL_HEADERS} global headers")
        if info.size < 0 or archive.offset <= end:
            raise tarfile.ReadError(f"the header at byte {info.offset} leads back")
        end = archive.offset
        archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep them all.
        yield info
    # tarfile treats an unreadable header as the end.
    file.seek(archive.offset)
    if file.read(_BLOCK_BYTES) != bytes(_BLOCK_BYTES):
        raise tarfile.ReadError(f"neither a header nor the end at byte {archive.offset}")


# === Zip ===


class Zip:
    """A zip archive at a path or URI, which stays open between reads. Its methods raise as those of `Tar`.

    Format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
    """

    def __init__(self, location: str) -> None:
        self._location = location
        self._lock = threading.Lock()
        try:
            self._archive = zipfile.ZipFile(open_file(location))
        except Exception as error:  # zipfile raises errors of nearly any class for hostile archives.
            raise UsageError(f"the archive cannot be read: {error}", location=location) from error

    def list_members(self, state: FileState) -> Iterator[ArchiveMember]:
        """Yields the files, each name once. Members that overlap raise UsageError."""
        members = self._archive.infolist()
        _check_overlap(members, self._location)
        raw_names = {member.orig_filename for member in members}
        decoded = [(*_decode_name(member, raw_names), member) for member in members]
        listed = [(name, (is_known, member)) for path, is_known, member in decoded if (name := listed_name(path))]
        last = dict(listed)
        if len(last) < len(listed):
            repeated = len(listed) - len(last)
            _log.warning("%s: %d repeated names. The last member with each name is used.", self._location, repeated)
        for name, (is_known, member) in last.items():
            stamp = f"crc:{member.CRC:08x}:{state.identity}"
            yield ArchiveMember(name, member.filename, min(member.file_size, _MAX_SIZE), stamp, is_known)

    def read(self, member: str, label: str, max_bytes: int) -> bytes:
        """Reads a member that messages call `label`; its declared size is checked before anything is unpacked."""
        info = self._find_member(member, label)
        check_size(info.file_size, label, max_bytes)
        with self._open(info) as file:
            return read_within(file, label, max_bytes)

    def read_start(self, member: str, label: str, size: int) -> bytes:
        """Reads at most the first `size` bytes of a member."""
        with self._open(self._find_member(member, label)) as file:
            return file.read(size)

    def _find_member(self, member: str, label: str) -> zipfile.ZipInfo:
        try:
            info = self._archive.getinfo(member)
        except KeyError as error:
            raise FileNotFoundError(label) from error
        if info.flag_bits & 1:
            raise RecordError("read", "encrypted", label, permanent=False)
        if stat.S_ISLNK(info.external_attr >> 16):
            raise RecordError("read", "symbolic link", label, permanent=False)
        if info.compress_type not in _ZIP_METHODS:
            detail = f"{label}: method {info.compress_type}"
            raise RecordError("read", "unsupported compression", detail, permanent=False)
        return info

    def _open(self, info: zipfile.ZipInfo) -> IO[bytes]:
        with self._lock:
            return self._archive.open(info)


def _decode_name(member: zipfile.ZipInfo, raw_names: Container[str]) -> tuple[str, bool]:
    """Returns the name of a member, and whether its encoding is known.

    Without the UTF-8 flag, `zipfile` decodes a name as code page 437, the encoding of the format, which few programs
    use. The name may be in the Unicode path field, or be UTF-8 nevertheless. Such a name must differ from the raw names
    of all members. Otherwise it is that of code page 437, which may be wrong.
    """
    if member.flag_bits & _ZIP_UTF8_FLAG:
        return member.filename, True
    # From Python 3.12 on, `filename` is the name in the Unicode path field.
    stored = member.orig_filename
    try:
        raw = stored.encode("cp437")
        unicode_path = _find_unicode_path(member.extra, raw)
        if stored.isascii() and unicode_path in (None, stored):
            return member.filename, True
        name = unicode_path or raw.decode()
    except UnicodeError:
        return member.filename, False
    return (member.filename, False) if name in raw_names else (name, True)


def _find_unicode_path(extra: bytes, raw: bytes) -> str | None:
    """Returns the name in the Unicode path field of a member, if it belongs to the raw name."""
    while len(extra) >= _ZIP_FIELD_HEADER.size:
        kind, size = _ZIP_FIELD_HEADER.unpack_from(extra)
        field, extra = extra[_ZIP_FIELD_HEADER.size :][:size], extra[_ZIP_FIELD_HEADER.size + size :]
        if kind == _ZIP_UNICODE_PATH and field[:5] == _ZIP_UNICODE_PATH_START.pack(1, zlib.crc32(raw)):
            return field[5:].decode()
    return None


def _check_overlap(members: list[zipfile.ZipInfo], location: str) -> None:
    """Raises UsageError if members share bytes of the archive, because a small zip could then unpack to any size."""
    end = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        if member.header_offset < end:
            message = "the members of the archive overlap, as in a zip bomb"
            raise UsageError(message, location=f"{location}/{member.filename}")
        end = member.header_offset + _ZIP_HEADER_BYTES + member.compress_size
