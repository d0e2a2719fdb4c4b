"""Downloads the image at a URL within limits of time, size, type and address.

    URL → checked → requested → redirected, each hop checked → 200, an image, not encoded → bytes, counted → complete

No response of a server raises an error other than RecordError. Messages contain URLs without users, and targets of
redirects without queries, which often are signatures. Only http and https URLs without a user name, and by default
only public addresses, are requested (`features.io.public_http`). Proxies of the environment are not used, because they
would resolve host names unchecked.
"""

import contextlib
import hashlib
import http.client
import socket
import ssl
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from io import BytesIO
from typing import BinaryIO
from urllib.parse import urljoin

from urllib3.exceptions import HTTPError, ReadTimeoutError
from urllib3.response import BaseHTTPResponse

from features.images.decode import has_image_signature
from features.inputs.robots_tag import find_refusal
from features.io.host_addresses import NO_SUCH_HOST, AddressCache
from features.io.public_http import Deadline, connect, parse_http_url
from schemas.defaults import MAX_IMAGE_BYTES
from schemas.errors import RecordError, to_record_error
from schemas.secrets import strip_query, strip_user

USER_AGENT = "Mozilla/5.0 (compatible; capt)"
# The reason of an image that its site does not allow to use.
ROBOTS_TAG = "robots tag"
MAX_DETAIL_CHARACTERS = 2000  # A header may have 65,536.

_ROBOT = "capt"  # its name in X-Robots-Tag
_HEADERS = {
    "User-Agent": USER_AGENT,
    "Accept": "image/jpeg, image/png, image/webp, image/gif, image/bmp, image/tiff, image/*;q=0.5, */*;q=0.1",
    "Accept-Encoding": "identity",
    "Connection": "close",
}
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
_TRANSIENT_CLIENT_ERRORS = frozenset((408, 425, 429))
_UNTYPED = frozenset(("", "application/octet-stream", "binary/octet-stream"))
_CHUNK_BYTES = 1 << 16


@dataclass(frozen=True)
class DownloadLimits:
    """Limits of one download. The look-up of a host name has the resolver's own time-out in addition."""

    max_bytes: int = MAX_IMAGE_BYTES  # declared and sent
    connect_seconds: float = 10.0  # per address of a host
    read_seconds: float = 20.0  # for each wait for more bytes
    total_seconds: float = 60.0  # with redirects, retries and pauses
    redirects: int = 5
    retries: int = 2  # after transient failures
    backoff_seconds: float = 1.0  # pause before the first retry; each further pause is twice as long
    retry_after_seconds: float = 30.0  # maximum accepted `Retry-After`
    allow_private: bool = False  # whether to request addresses outside the public internet
    heed_robots_tag: bool = False  # whether to refuse images that X-Robots-Tag forbids to use


class DownloadError(RecordError):
    """A URL without an image.

    Args:
        reason: `http 404` and the like, `timed out`, `too large`, `not an image`, `empty`, `encoded`, `broken off`,
            `refused`, `busy`, `no such host`, `no connection`, `certificate`, `too many redirects`, `private address`,
            `robots tag`, `scheme` or `bad address`.
        permanent: Whether the URL would probably fail again on the next day.
        transient: Whether a retry may succeed at once.
        retry_after: Seconds to wait, as requested by the server; None if it requests none.
    """

    def __init__(
        self, reason: str, detail: str, *, permanent: bool, transient: bool = False, retry_after: float | None = None
    ) -> None:
        shortened = detail if len(detail) <= MAX_DETAIL_CHARACTERS else f"{detail[:MAX_DETAIL_CHARACTERS]}…"
        super().__init__("download", reason, shortened, permanent=permanent)
        self.transient = transient
        self.retry_after = retry_after


def is_image_url(name: str) -> bool:
    """Returns whether the name of an image is an http or https URL."""
    return name.lower().startswith(("http://", "https://"))


def download(url: str, limits: DownloadLimits | None = None) -> bytes:
    """Returns the encoded image at an http or https URL.

    Raises:
        RecordError: Stage `download`, with a reason of `DownloadError`.
    """
    sink = BytesIO()
    download_into(url, sink, limits or DownloadLimits())
    return sink.getvalue()


def download_into(
    url: str,
    sink: BinaryIO,
    limits: DownloadLimits,
    rest: Callable[[float], object] = time.sleep,
    addresses: AddressCache | None = None,
) -> None:
    """Writes the encoded image at a URL to a seekable file, in bounded memory.

    `rest` waits before a retry. `addresses` are those of hosts that are known; by default, none are.

    After an error, the file may contain a part of the image.

    Raises:
        RecordError: As raised by `download`.
        OSError: Writing the file failed.
    """
    with Deadline(limits.total_seconds) as deadline:
        for attempt in range(limits.retries + 1):
            sink.seek(0)
            sink.truncate()
            try:
                # This loop raises other exceptions than DownloadError only for the file.
                with contextlib.closing(_receive(url, limits, deadline, addresses)) as chunks:
                    for chunk in chunks:
                        sink.write(chunk)
                return
            except DownloadError as error:
                requested = error.retry_after or 0.0
                pause = max(limits.backoff_seconds * 2**attempt, requested)
                is_last = attempt == limits.retries or not error.transient
                if is_last or requested > limits.retry_after_seconds or pause >= deadline.left:
                    raise
            rest(pause)


def build_download_name(url: str) -> str:
    """Returns the name of a URL's image in a directory of downloads: the URL's SHA-256, below its first two digits.

    It has no suffix, because the format is unknown before the download.
    """
    digest = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{digest[:2]}/{digest}"


def _receive(
    url: str, limits: DownloadLimits, deadline: Deadline, addresses: AddressCache | None
) -> Generator[bytes, None, None]:
    """Yields the chunks of the image; turns every exception that a response causes into RecordError."""
    try:
        target, label = url, strip_user(url)
        for _ in range(limits.redirects + 1):
            with contextlib.closing(_Response(target, label, limits, deadline, addresses)) as response:
                redirect = response.find_redirect()
                if redirect is None:
                    response.check()
                    yield from response.read_chunks()
                    return
            target, label = redirect, f"{strip_user(url)} → {strip_query(redirect)}"
        raise DownloadError("too many redirects", f"{label}: more than {limits.redirects}", permanent=True)
    except Exception as error:
        raise to_record_error("download", error) from error


class _Response:
    """A server's response to the request of one URL, which messages call `label`."""

    def __init__(
        self, url: str, label: str, limits: DownloadLimits, deadline: Deadline, addresses: AddressCache | None
    ) -> None:
        self._url, self._label = url, label
        self._limits, self._deadline = limits, deadline
        with _translate_errors(label, deadline):
            deadline.check()
            parsed = parse_http_url(url)
            self._connection = connect(parsed, deadline, limits.connect_seconds, limits.allow_private, addresses)
            try:
                self._connection.timeout = limits.read_seconds
                self._connection.request("GET", parsed.request_uri, headers=_HEADERS, preload_content=False)
                self._response: BaseHTTPResponse = self._connection.getresponse()
            except BaseException:
                self._connection.close()
                raise
        self._content_type = self._header("Content-Type").partition(";")[0].strip().lower()

    def close(self) -> None:
        self._response.close()
        self._connection.close()

    def find_redirect(self) -> str | None:
        """Returns the URL that the server redirects to; None without a redirect."""
        location = self._header("Location")
        if self._response.status not in _REDIRECTS or not location:
            return None
        # Headers are decoded as Latin-1, but some servers send UTF-8.
        location = location.encode("latin-1", "replace").decode("utf-8", "replace")
        try:
            return urljoin(self._url, location)
        except ValueError as error:
            raise self._fail("bad address", f"redirected to {strip_query(location)!r}: {error}") from error

    def check(self) -> None:
        """Raises DownloadError if the headers rule out an image within the limits."""
        status = self._response.status
        if status != http.client.OK:
            transient = status >= 500 or status in _TRANSIENT_CLIENT_ERRORS
            permanent = 400 <= status < 500 and not transient
            wait = _parse_retry_after(self._header("Retry-After")) if transient else None
            raise DownloadError(
                f"http {status}", self._label, permanent=permanent, transient=transient, retry_after=wait
            )
        if self._limits.heed_robots_tag:
            refusal = find_refusal(self._response.headers.getlist("X-Robots-Tag"), _ROBOT)
            if refusal:
                raise self._fail(ROBOTS_TAG, f"X-Robots-Tag has {refusal}")
        if not self._content_type.startswith("image/") and self._content_type not in _UNTYPED:
            raise self._fail("not an image", self._content_type)
        encoding = self._header("Content-Encoding").strip().lower()
        if encoding not in ("", "identity"):
            raise self._fail("encoded", f"with {encoding}, which was not requested")
        declared = self._header("Content-Length").strip()
        if declared.isdecimal() and len(declared) < 20 and int(declared) > self._limits.max_bytes:
            raise self._fail_as_too_large()

    def read_chunks(self) -> Iterator[bytes]:
        total = 0
        while chunk := self._read_chunk():
            if not total and self._content_type in _UNTYPED and not has_image_signature(chunk):
                raise self._fail("not an image", f"no known format begins with {chunk[:8]!r}")
            total += len(chunk)
            if total > self._limits.max_bytes:
                raise self._fail_as_too_large()
            yield chunk
        if not total:
            raise self._fail("empty", "zero bytes")

    def _read_chunk(self) -> bytes:
        with _translate_errors(self._label, self._deadline):
            chunk = bytearray()
            # `read` treats a chunk of a negative size as the rest of the connection, and reads the rest into memory.
            while len(chunk) < _CHUNK_BYTES and (
                part := self._response.read1(_CHUNK_BYTES - len(chunk), decode_content=False)
            ):
                chunk += part
            # A connection that the deadline shut down looks like one that the server ended.
            self._deadline.check()
            return bytes(chunk)

    def _header(self, name: str) -> str:
        return self._response.headers.get(name, "")

    def _fail(self, reason: str, problem: str) -> DownloadError:
        return DownloadError(reason, f"{self._label}: {problem}", permanent=True)

    def _fail_as_too_large(self) -> DownloadError:
        return self._fail("too large", f"more than {self._limits.max_bytes} bytes")


@contextlib.contextmanager
def _translate_errors(label: str, deadline: Deadline) -> Iterator[None]:
    """Turns errors of the network and its libraries into DownloadError."""
    try:
        yield
    except RecordError as error:
        detail = error.detail if label in error.detail else f"{label}: {error.detail}"
        raise DownloadError(error.reason, detail, permanent=error.permanent) from error
    except Exception as error:
        if not deadline.left:
            raise DownloadError("timed out", f"{label}: the time limit is exceeded", permanent=False) from error
        if not isinstance(error, OSError | HTTPError | http.client.HTTPException | ValueError):
            raise
        reason, permanent, transient = _classify(error)
        detail = f"{label}: {str(error) or type(error).__name__}"
        raise DownloadError(reason, detail, permanent=permanent, transient=transient) from error


def _classify(error: Exception) -> tuple[str, bool, bool]:
    """Returns the reason of an error, whether it is permanent, and whether it is transient."""
    if isinstance(error, TimeoutError | ReadTimeoutError):
        return "timed out", False, True
    if isinstance(error, socket.gaierror):
        permanent = error.errno in NO_SUCH_HOST
        return "no such host", permanent, not permanent
    if isinstance(error, ssl.SSLCertVerificationError):
        return "certificate", False, False  # not permanent: this machine's certificates or clock may be wrong
    if isinstance(error, ConnectionRefusedError):
        return "refused", False, True
    if isinstance(error, ValueError):  # also UnicodeError, of an invalid host name
        return "bad address", True, False
    if isinstance(error, HTTPError | http.client.HTTPException | ConnectionError):
        return "broken off", False, True
    return "no connection", False, True


def _parse_retry_after(header: str) -> float | None:
    """Returns the seconds of a Retry-After header (RFC 9110, section 10.2.3), a number or a date; None if neither."""
    text = header.strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, IndexError, OverflowError):  # a day outside the calendar or datetime's range
        return None
