"""Limits of one read: how many bytes of a file or member are taken at most."""

from typing import Protocol

from schemas.errors import RecordError

MAX_IMAGE_BYTES = 256 << 20


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def check_size(size: int, label: str, max_bytes: int) -> None:
    """RecordError `too large` where the bytes that a file says to hold are more than `max_bytes`."""
    if size > max_bytes:
        raise RecordError("read", "too large", f"{label}: more than {max_bytes} bytes", permanent=False)


def read_within(file: _Readable, label: str, max_bytes: int) -> bytes:
    """What is left of a file; RecordError `too large` where that is more than `max_bytes`, whatever it said."""
    data = file.read(max_bytes + 1)
    check_size(len(data), label, max_bytes)
    return data
