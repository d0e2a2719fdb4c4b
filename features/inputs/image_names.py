"""Compares the names of images: one file can be named in several ways."""

import unicodedata


def normalize_name(name: str) -> str:
    """Returns a name in composed Unicode form, with slashes for backslashes, without a leading `./`."""
    normalized = unicodedata.normalize("NFC", name).replace("\\", "/")
    while normalized.startswith("./"):
        normalized = normalized[2:].lstrip("/")
    return normalized
