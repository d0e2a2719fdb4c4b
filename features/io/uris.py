"""Names: paths, addresses, and members of archives as a walk tells them."""

import re

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_HERE = re.compile(r"(\./+)+")


def is_uri(location: str) -> bool:
    """Whether it begins with a scheme, `s3://`, rather than being a path."""
    return bool(_ADDRESS.match(location))


def printable(path: str) -> str:
    """The path as text: bytes that are not UTF-8, which no table can hold, written in hexadecimal."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def listed_name(member: str) -> str | None:
    """The name by which a walk tells a member of an archive or an object of a bucket.

    Args:
        member: str. Its name there, or its path below the prefix.

    Returns:
        It without a leading `./`; None for directories and for what is hidden: parts that begin with a dot, `__MACOSX`.
    """
    here = _HERE.match(member)
    name = member[here.end() :] if here else member
    parts = name.split("/")
    hidden = any(part.startswith(".") and part not in (".", "..") for part in parts)
    return None if hidden or not parts[-1] or parts[0] == "__MACOSX" else name
