"""Reads zip archives in place.

Format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
"""

import logging
import stat
import threading
import zipfile
from collections.abc import Container, Iterator
from typing import IO

from features.inputs.archive_members import MAX_SIZE, ArchiveMember, listed_name
from features.io.open_files import FileState, check_size, open_file, read_within
from schemas.errors import RecordError, UsageError

# zipfile unpacks other methods in unbounded memory.
_SUPPORTED_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_LOCAL_HEADER_BYTES = 30
_UTF8_FLAG = 0x800

_log = logging.getLogger("capt.inputs")


class Zip:
    """A zip archive at a path or URI, which stays open between reads. Its methods raise as those of `Tar`."""

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
        raw_names = {member.filename for member in members}
        listed = [(name, member) for member in members if (name := listed_name(_decode_name(member, raw_names)))]
        last = dict(listed)
        if len(last) < len(listed):
            repeated = len(listed) - len(last)
            _log.warning("%s: %d repeated names. The last member with each name is used.", self._location, repeated)
        for name, member in last.items():
            stamp = f"crc:{member.CRC:08x}:{state.identity}"
            yield ArchiveMember(name, member.filename, min(member.file_size, MAX_SIZE), stamp)

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
        if info.compress_type not in _SUPPORTED_METHODS:
            detail = f"{label}: method {info.compress_type}"
            raise RecordError("read", "unsupported compression", detail, permanent=False)
        return info

    def _open(self, info: zipfile.ZipInfo) -> IO[bytes]:
        with self._lock:
            return self._archive.open(info)


def _decode_name(member: zipfile.ZipInfo, raw_names: Container[str]) -> str:
    """Returns the name of a member, also if it is UTF-8 without the flag, which `zipfile` decodes as code page 437.

    A decoded name must differ from the raw names of all members.
    """
    if member.flag_bits & _UTF8_FLAG or member.filename.isascii():
        return member.filename
    try:
        name = member.filename.encode("cp437").decode()
    except UnicodeError:
        return member.filename
    return member.filename if name in raw_names else name


def _check_overlap(members: list[zipfile.ZipInfo], location: str) -> None:
    """Raises UsageError if members share bytes of the archive, because a small zip could then unpack to any size."""
    end = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        if member.header_offset < end:
            message = "the members of the archive overlap, as in a zip bomb"
            raise UsageError(message, location=f"{location}/{member.filename}")
        end = member.header_offset + _LOCAL_HEADER_BYTES + member.compress_size
