"""Tar archives, read in place: ustar, GNU and pax, without compression.

A member is named by its name, `@` and the place of its header, `images/a.jpg@1536`, so that a worker reads it without
looking through the archive. The header there is read again and must still have the name.

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

from features.io.open_files import FileState, open_file
from features.io.read_limits import check_size
from features.io.uris import listed_name, printable
from features.references.archive_members import ArchiveMember
from schemas.errors import RecordError, UsageError

BLOCK = tarfile.BLOCKSIZE
_PLACE = re.compile(r"(?s)(.+)@(\d{1,18})")
_HEADER_BYTES = 1 << 20
_GLOBAL_HEADERS = 1000
# Over a network one request a header would take longer than reading what lies between small members.
_BUFFER = 4 << 20

_log = logging.getLogger("capt.references")


class Tar:
    """A tar archive.

    Args:
        location: str. Path or address.
    """

    def __init__(self, location: str) -> None:
        self._location = location

    def entries(self, state: FileState) -> Iterator[ArchiveMember]:
        """The files and links in it, from one pass over the headers; the names wait on disk, not in memory."""
        with contextlib.closing(sqlite3.connect("")) as database:
            database.execute("CREATE TABLE entry (name TEXT PRIMARY KEY, member, size, stamp) WITHOUT ROWID")
            try:
                written = database.executemany(
                    "INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?)", self._rows(state.version)
                )
            except Exception as error:  # tarfile raises many classes on archives that were made to confuse it.
                message = f"the tar archive is damaged or not whole: {error}"
                raise UsageError(message, location=self._location, hint="fetch or pack it again") from error
            (count,) = database.execute("SELECT count(*) FROM entry").fetchone()
            if count < written.rowcount:
                again = written.rowcount - count
                _log.warning("%s: %d names occur again; the last of each counts", self._location, again)
            for row in database.execute("SELECT name, member, size, stamp FROM entry"):
                yield ArchiveMember(*row)

    def read(self, member: str, label: str, max_bytes: int) -> bytes:
        """The bytes of a member, as `Archive` tells."""
        with open_file(self._location) as file:
            size = _seek_data(file, member, label)
            check_size(size, label, max_bytes)
            data = file.read(size)
        if len(data) != size:
            raise EOFError("the archive ends within it")
        return data

    def read_start(self, member: str, label: str, size: int) -> bytes:
        """The first bytes of a member, as `Archive` tells."""
        with open_file(self._location) as file:
            return file.read(min(size, _seek_data(file, member, label)))

    def _rows(self, version: str) -> Iterator[tuple[str, str, int, str]]:
        with open_file(self._location, _BUFFER) as file:
            for info in _headers(file):
                raw = printable(info.name)
                name = listed_name(raw)
                if name and (info.isreg() or info.issym() or info.islnk()):
                    stamp = f"tar:{info.offset}:{info.size}:{info.mtime}:{version}"
                    yield name, f"{raw}@{info.offset}", info.size, stamp


class _Headers(io.BufferedIOBase):
    """A file as tarfile reads headers from it: none of any size it likes, so that memory stays bounded."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes, 1 MiB at most."""
        if size is None or not 0 <= size <= _HEADER_BYTES:
            raise tarfile.ReadError(f"a header says to be {size} bytes long")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a place."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The place."""
        return self._file.tell()


def _seek_data(file: BinaryIO, member: str, label: str) -> int:
    """Goes to the data of a member.

    Args:
        file: The archive.
        member: Name and place of the member's header.
        label: Name of the member in messages.

    Returns:
        The number of bytes there.
    """
    place = _PLACE.fullmatch(member)
    if place is None:
        raise FileNotFoundError(label)
    file.seek(int(place[2]))
    info = tarfile.TarFile(fileobj=_Headers(file)).next()
    if info is None or printable(info.name) != place[1]:
        raise FileNotFoundError(label)
    _check_member(info, label)
    file.seek(info.offset_data)
    return info.size


def _headers(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """The headers of an archive, one after the other; ReadError where it does not end as it should."""
    archive = tarfile.TarFile(fileobj=_Headers(file))
    end = 0
    while info := archive.next():
        if len(archive.pax_headers) > _GLOBAL_HEADERS:  # Each member gets a copy of them.
            raise tarfile.ReadError(f"more than {_GLOBAL_HEADERS} global headers")
        if info.size < 0 or archive.offset <= end:
            raise tarfile.ReadError(f"the header at byte {info.offset} leads back")
        end = archive.offset
        archive.members.clear()  # type: ignore[attr-defined]  # It would keep them all.
        yield info
    # tarfile takes a header that it cannot read for the end.
    file.seek(archive.offset)
    if file.read(BLOCK) != bytes(BLOCK):
        raise tarfile.ReadError(f"no header and no end at byte {archive.offset}")


def _check_member(info: tarfile.TarInfo, label: str) -> None:
    if info.issym():
        raise RecordError("read", "symbolic link", label, permanent=False)
    if info.islnk():
        raise RecordError("read", "hard link", label, permanent=False)
    if info.issparse():
        raise RecordError("read", "sparse", label, permanent=False)
    if not info.isreg() or info.size < 0:
        raise RecordError("read", "unreadable", f"{label}: no file", permanent=False)
