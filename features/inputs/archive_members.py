"""Declares the interface of archives, their members, and the names of members in a listing."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from features.io.open_files import FileState

MAX_SIZE = (1 << 63) - 1  # Tables store signed 64-bit integers; an archive may declare more.

_CURRENT_DIRECTORY = re.compile(r"(\./+)+")


@dataclass(frozen=True)
class ArchiveMember:
    """A file in an archive.

    Args:
        name: Name in a listing.
        member: Key of the file in the archive; contains at least the name.
        size: Declared number of unpacked bytes, at most `MAX_SIZE`.
        stamp: Differs whenever the contents may have changed.
    """

    name: str
    member: str
    size: int
    stamp: str


class Archive(Protocol):
    """An archive that is read in place."""

    def list_members(self, state: FileState) -> Iterator[ArchiveMember]:
        """Yields the files in the archive, each name once.

        Args:
            state: State of the archive before the listing.

        Raises:
            UsageError: The archive is corrupt or incomplete.
        """

    def read(self, member: str, label: str, max_bytes: int) -> bytes:
        """Reads a file in the archive.

        Args:
            member: Key of the file, as in `ArchiveMember.member`.
            label: Name of the file in messages.
            max_bytes: Maximum declared number of bytes; checked before anything is read or unpacked.

        Raises:
            RecordError: As raised by `Reference.read`.
            FileNotFoundError: The member does not exist.
            Exception: Nearly any class, if the archive is hostile.
        """

    def read_start(self, member: str, label: str, size: int) -> bytes:
        """Reads at most the first `size` bytes of a file in the archive; raises as `read`."""


def escape_bytes(path: str) -> str:
    r"""Returns a path as text: bytes that are not UTF-8, which no table can store, become `\xNN`."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def listed_name(member: str) -> str | None:
    """Returns the name of an archive member, or of an object below a prefix, in a listing.

    Returns:
        The name without a leading `./`; None for directories and hidden files (a part begins with a dot, or the first
        one is `__MACOSX`).
    """
    prefix = _CURRENT_DIRECTORY.match(member)
    name = member[prefix.end() :] if prefix else member
    parts = name.split("/")
    is_hidden = any(part.startswith(".") and part not in (".", "..") for part in parts)
    return None if is_hidden or not parts[-1] or parts[0] == "__MACOSX" else name
