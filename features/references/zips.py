"""Zip archives, read in place.

Format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
"""

import logging
import stat
import threading
import zipfile
from collections.abc import Container, Iterator
from typing import IO

from features.io.open_files import FileState, open_file
from features.io.read_limits import check_size, read_within
from features.io.uris import listed_name
from features.references.archive_members import MAX_SIZE, ArchiveMember
from schemas.errors import RecordError, UsageError

# zipfile unpacks the others without a bound on the memory that it takes.
_UNPACKED = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_LOCAL_HEADER = 30
_UTF8_FLAG = 0x800

_log = logging.getLogger("capt.references")


class Zip:
    """A zip archive, kept open between reads.

    Args:
        location: str. Path or address.
    """

    def __init__(self, location: str) -> None:
        self._location = location
        self._lock = threading.Lock()
        try:
            self._archive = zipfile.ZipFile(open_file(location))
        except Exception as error:  # zipfile raises nearly any class on archives that were made to confuse it.
            raise UsageError(f"the archive cannot be read: {error}", location=location) from error

    def entries(self, state: FileState) -> Iterator[ArchiveMember]:
        """The files in it; UsageError where members overlap."""
        members = self._archive.infolist()
        _check_overlap(members, self._location)
        raw = {member.filename for member in members}
        listed = [(name, member) for member in members if (name := listed_name(_readable_name(member, raw)))]
        last = dict(listed)
        if len(last) < len(listed):
            _log.warning("%s: %d names occur again; the last of each counts", self._location, len(listed) - len(last))
        for name, member in last.items():
            yield ArchiveMember(
                name, member.filename, min(member.file_size, MAX_SIZE), f"crc:{member.CRC:08x}:{state.identity}"
            )

    def read(self, member: str, label: str, max_bytes: int) -> bytes:
        """The bytes of a member, as `Archive` tells."""
        info = self._member(member, label)
        check_size(info.file_size, label, max_bytes)
        with self._open(info) as file:
            return read_within(file, label, max_bytes)

    def read_start(self, member: str, label: str, size: int) -> bytes:
        """The first bytes of a member, as `Archive` tells."""
        with self._open(self._member(member, label)) as file:
            return file.read(size)

    def _member(self, member: str, label: str) -> zipfile.ZipInfo:
        try:
            info = self._archive.getinfo(member)
        except KeyError as error:
            raise FileNotFoundError(label) from error
        _check_member(info, label)
        return info

    def _open(self, info: zipfile.ZipInfo) -> IO[bytes]:
        with self._lock:
            return self._archive.open(info)


def _readable_name(member: zipfile.ZipInfo, raw: Container[str]) -> str:
    """Returns the name of a member that was written in UTF-8 without the flag that says so; else the name as it is.

    Args:
        member: The member. `zipfile` decodes its name as code page 437 without the flag.
        raw: The names of all members, which a name repaired must not equal.
    """
    if member.flag_bits & _UTF8_FLAG or member.filename.isascii():
        return member.filename
    try:
        name = member.filename.encode("cp437").decode()
    except UnicodeError:
        return member.filename
    return member.filename if name in raw else name


def _check_overlap(members: list[zipfile.ZipInfo], location: str) -> None:
    """UsageError where members share bytes of the archive, by which a small one unpacks to any size."""
    end = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        if member.header_offset < end:
            raise UsageError(
                "the archive's members overlap, as a zip bomb's do", location=f"{location}/{member.filename}"
            )
        end = member.header_offset + _LOCAL_HEADER + member.compress_size


def _check_member(info: zipfile.ZipInfo, label: str) -> None:
    if info.flag_bits & 1:
        raise RecordError("read", "encrypted", label, permanent=False)
    if stat.S_ISLNK(info.external_attr >> 16):
        raise RecordError("read", "symbolic link", label, permanent=False)
    if info.compress_type not in _UNPACKED:
        raise RecordError("read", "unsupported compression", f"{label}: method {info.compress_type}", permanent=False)
