"""Announcements: what a web server says of a file, and whether what it sends later is still that file."""

import re

from pydantic import BaseModel, ConfigDict
from urllib3 import BaseHTTPResponse

from schemas.errors import CaptError

_DIGITS = r"[0-9]{1,20}"
_RANGE = re.compile(rf"bytes ({_DIGITS})-{_DIGITS}/({_DIGITS})")


class RemoteFileInfo(BaseModel):
    """What a server says of a file.

    Args:
        address: str. Where it was asked for.
        bytes: int. The whole file's length.
        etag: str. Its strong entity tag, quotes and all; empty where it has none.
        modified: str. When it changed last, as the server writes it; empty where it does not say.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str
    bytes: int
    etag: str
    modified: str

    @property
    def validator(self) -> str:
        """What `If-Range` (RFC 9110, 13.1.5) can ask for; empty where the server gave nothing of the kind."""
        return self.etag or self.modified

    def continued_by(self, response: BaseHTTPResponse, first: int) -> bool:
        """Whether an answer is the rest of this very file from byte `first` on."""
        start, size = _range_of(response)
        same = response.headers.get("ETag", self.etag) == self.etag
        return response.status == 206 and start == first and size == self.bytes and same


def request_file_info(address: str, response: BaseHTTPResponse, published: int | None) -> RemoteFileInfo:
    """What an answer says of the file at `address`; CaptError where it is not the one that was published.

    Args:
        address: str. Where it was asked for.
        response: urllib3 response of status 200 or 206.
        published: int or None. The length that the file should have, where that is known.
    """
    size = _range_of(response)[1] if response.status == 206 else _length_of(response, published)
    if size is None:
        raise CaptError("the server does not say how long the file is", location=address)
    if size != (published or size):
        raise CaptError(
            f"the server has a file of {size:,} bytes, and the published one has {published:,}",
            location=address,
            hint="it is another file, or a page that asks for a login",
        )
    etag = _validator(response, "ETag")
    return RemoteFileInfo(
        address=address,
        bytes=size,
        etag="" if etag.startswith("W/") else etag,
        modified=_validator(response, "Last-Modified"),
    )


def _validator(response: BaseHTTPResponse, name: str) -> str:
    """A header that `If-Range` may repeat; empty if it is missing, or holds what no request may."""
    value = response.headers.get(name, "")
    return value if value.isprintable() else ""


def _length_of(response: BaseHTTPResponse, published: int | None) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if re.fullmatch(_DIGITS, length) else published


def _range_of(response: BaseHTTPResponse) -> tuple[int | None, int | None]:
    """First byte of a partial answer, and the whole file's length; None where the server does not say."""
    found = _RANGE.fullmatch(response.headers.get("Content-Range", ""))
    return (int(found[1]), int(found[2])) if found else (None, None)
