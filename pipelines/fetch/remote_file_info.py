"""Reads what a web server reports about a file, and checks whether a later response belongs to the same file."""

import re

from pydantic import BaseModel, ConfigDict
from urllib3 import BaseHTTPResponse

from schemas.errors import CaptError

_DIGITS = r"[0-9]{1,20}"
_RANGE = re.compile(rf"bytes ({_DIGITS})-{_DIGITS}/({_DIGITS})")


class RemoteFileInfo(BaseModel):
    """What a server reports about a file.

    Args:
        url: The requested URL.
        bytes: Length of the whole file.
        etag: Strong entity tag with its quotes; empty if the server sends none.
        modified: Time of the last change, as the server writes it; empty if unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    bytes: int
    etag: str
    modified: str

    @property
    def validator(self) -> str:
        """The value for `If-Range` (RFC 9110, 13.1.5); empty if the server sent none."""
        return self.etag or self.modified

    def is_continued_by(self, response: BaseHTTPResponse, first: int) -> bool:
        """Returns whether a response contains the rest of this file from byte `first` on."""
        start, size = _parse_range(response)
        is_same = response.headers.get("ETag", self.etag) == self.etag
        return response.status == 206 and start == first and size == self.bytes and is_same


def read_file_info(url: str, response: BaseHTTPResponse, published_bytes: int | None) -> RemoteFileInfo:
    """Reads a response with status 200 or 206.

    Args:
        url: The requested URL.
        response: The response.
        published_bytes: Length of the published file, if it is known.

    Raises:
        CaptError: The length is unknown, or differs from the published file's.
    """
    size = _parse_range(response)[1] if response.status == 206 else _parse_length(response, published_bytes)
    if size is None:
        raise CaptError("the server does not report the length of the file", location=url)
    if size != (published_bytes or size):
        raise CaptError(
            f"the published file has {published_bytes:,} bytes, but the server's file has {size:,}",
            location=url,
            hint="Check whether the URL leads to another file or to a login page.",
        )
    etag = _read_validator(response, "ETag")
    return RemoteFileInfo(
        url=url,
        bytes=size,
        etag="" if etag.startswith("W/") else etag,
        modified=_read_validator(response, "Last-Modified"),
    )


def _read_validator(response: BaseHTTPResponse, name: str) -> str:
    """Returns a header that `If-Range` may repeat; empty if it is missing, or not allowed in a request."""
    value = response.headers.get(name, "")
    return value if value.isprintable() else ""


def _parse_length(response: BaseHTTPResponse, default: int | None) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if re.fullmatch(_DIGITS, length) else default


def _parse_range(response: BaseHTTPResponse) -> tuple[int | None, int | None]:
    """Returns the first byte of a partial response and the length of the whole file; None if unknown."""
    match = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    return (int(match[1]), int(match[2])) if match else (None, None)
