"""Describes the members of archives, and their names in a listing."""

import re
from dataclasses import dataclass

MAX_SIZE = (1 << 63) - 1  # Tables store signed 64-bit integers; an archive may declare more.

_CURRENT_DIRECTORY = re.compile(r"(\./+)+")


@dataclass(frozen=True)
class ArchiveMember:
    """A file in an archive."""

    name: str  # in a listing
    member: str  # key of the file in the archive; contains at least the name
    size: int  # declared number of unpacked bytes, at most `MAX_SIZE`
    stamp: str  # differs whenever the contents may have changed


def escape_bytes(path: str) -> str:
    r"""Returns a path as text: bytes that are not UTF-8, which no table can store, become `\xNN`."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def listed_name(member: str) -> str | None:
    """Returns the name of an archive member, or of an object below a prefix, in a listing, without a leading `./`.

    Directories and hidden files (a part begins with a dot, or the first one is `__MACOSX`) have none.
    """
    prefix = _CURRENT_DIRECTORY.match(member)
    name = member[prefix.end() :] if prefix else member
    parts = name.split("/")
    is_hidden = any(part.startswith(".") and part not in (".", "..") for part in parts)
    return None if is_hidden or not parts[-1] or parts[0] == "__MACOSX" else name
