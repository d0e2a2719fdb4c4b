"""Reads tar archives in place: ustar, GNU and pax, without compression.

A member is found by its name, `@` and the offset of its header, `images/a.jpg@1536`, so that a worker reads it without
searching the archive. The header at this offset must still have the name.

Format: https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html
"""

import contextlib
import io
import logging
import re
import sqlite3
import tarfile
from collections.abc import Iterator
from typing import BinaryIO

from features.inputs.archive_members import ArchiveMember, escape_bytes, listed_name
from features.io.open_files import FileState, check_size, open_file
from schemas.errors import RecordError, UsageError

BLOCK_BYTES = tarfile.BLOCKSIZE
_MEMBER = re.compile(r"(?s)(.+)@(\d{1,18})")
_MAX_HEADER_BYTES = 1 << 20
_MAX_GLOBAL_HEADERS = 1000
# Over a network, one request per header takes longer than reading the small members between them.
_LISTING_BUFFER_BYTES = 4 << 20

_log = logging.getLogger("capt.inputs")


class Tar:
    """A tar archive at a path or URI. Any class of error can mean that it is hostile."""

    def __init__(self, location: str) -> None:
        self._location = location

    def list_members(self, state: FileState) -> Iterator[ArchiveMember]:
        """Yields the files and links, each name once, after one pass over the headers; names are stored on disk.

        Raises:
            UsageError: The archive is corrupt or incomplete.
        """
        with contextlib.closing(sqlite3.connect("")) as database:
            database.execute("CREATE TABLE member (name TEXT PRIMARY KEY, member, size, stamp) WITHOUT ROWID")
            try:
                inserted = database.executemany(
                    "INSERT OR REPLACE INTO member VALUES (?, ?, ?, ?)", self._read_rows(state.version)
                )
            except Exception as error:  # tarfile raises errors of many classes for hostile archives.
                message = f"the tar archive is corrupt or incomplete: {error}"
                raise UsageError(message, location=self._location, hint="Download or pack it again.") from error
            (count,) = database.execute("SELECT count(*) FROM member").fetchone()
            if repeated := inserted.rowcount - count:
                _log.warning("%s: %d repeated names. The last member with each name is used.", self._location, repeated)
            for row in database.execute("SELECT name, member, size, stamp FROM member"):
                yield ArchiveMember(*row)

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

    def _read_rows(self, version: str) -> Iterator[tuple[str, str, int, str]]:
        with open_file(self._location, _LISTING_BUFFER_BYTES) as file:
            for info in _read_headers(file):
                path = escape_bytes(info.name)
                name = listed_name(path)
                if name and (info.isreg() or info.issym() or info.islnk()):
                    stamp = f"tar:{info.offset}:{info.size}:{info.mtime}:{version}"
                    yield name, f"{path}@{info.offset}", info.size, stamp


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
    match = _MEMBER.fullmatch(member)
    if match is None:
        raise FileNotFoundError(label)
    file.seek(int(match[2]))
    info = tarfile.TarFile(fileobj=_HeaderFile(file)).next()
    if info is None or escape_bytes(info.name) != match[1]:
        raise FileNotFoundError(label)
    kinds = {"symbolic link": info.issym(), "hard link": info.islnk(), "sparse": info.issparse()}
    if reason := next((kind for kind, is_found in kinds.items() if is_found), None):
        raise RecordError("read", reason, label, permanent=False)
    if not info.isreg() or info.size < 0:
        raise RecordError("read", "unreadable", f"{label}: not a file", permanent=False)
    file.seek(info.offset_data)
    return info.size


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
    if file.read(BLOCK_BYTES) != bytes(BLOCK_BYTES):
        raise tarfile.ReadError(f"neither a header nor the end at byte {archive.offset}")
