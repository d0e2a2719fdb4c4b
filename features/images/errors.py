"""Defines the errors that several readers of images raise."""

from schemas.errors import RecordError


def truncation_error(data: bytes) -> RecordError:
    """Returns the error of an image whose data ends too early."""
    return RecordError("decode", "truncated", f"the file ends after {len(data)} bytes")
