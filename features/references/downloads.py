"""Downloads: the image at one address, under limits of time, size, kind and place.

    address → checked → asked → redirected, each hop checked → 200, an image, not encoded → bytes, counted → whole

A server's answer raises nothing but RecordError, whatever is in it. Messages name addresses without users, and targets
of redirects without queries, which often are signatures. Only http and https, without a user name, and only to public
addresses unless told otherwise (`features.io.http_connections`). The proxies that environment variables name are not
used: they
would resolve hosts where nothing is checked.
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
from urllib3.util import Url

from features.images.decode import has_image_signature
from features.io.http_connections import Deadline, connect, parse_http_url
from features.references import MAX_IMAGE_BYTES
from schemas.errors import RecordError, to_record_error
from schemas.secrets import strip_query, strip_user

USER_AGENT = "Mozilla/5.0 (compatible; capt)"

MAX_DETAIL = 2000  # characters; a header may have 65,536

_HEADERS = {
    "User-Agent": USER_AGENT,
    "Accept": "image/jpeg, image/png, image/webp, image/gif, image/bmp, image/tiff, image/*;q=0.5, */*;q=0.1",
    "Accept-Encoding": "identity",
    "Connection": "close",
}
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
# Of the answers that blame the request these alone may change.
_PASSING = frozenset((408, 425, 429))
_UNTYPED = frozenset(("", "application/octet-stream", "binary/octet-stream"))
_CHUNK = 1 << 16
_NO_SUCH_HOST = frozenset((socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)))


@dataclass(frozen=True)
class DownloadLimits:
    """What one download may take.

    Args:
        max_bytes: int. Bytes of the image at most, by what the server declares and by what it sends.
        connect_seconds: float. For connecting, to each of a host's addresses.
        read_seconds: float. For each wait for more bytes.
        total_seconds: float. For all of it: redirects, tries, the pauses between them. The look-up of a host's name has
            the resolver's own time-out besides.
        redirects: int. At most.
        retries: int. Further tries after a failure that may pass.
        backoff_seconds: float. Pause before the first further try; it doubles with each.
        retry_after_seconds: float. The longest `Retry-After` that is waited for.
        allow_private: bool. Whether addresses outside the public internet are asked.
    """

    max_bytes: int = MAX_IMAGE_BYTES
    connect_seconds: float = 10.0
    read_seconds: float = 20.0
    total_seconds: float = 60.0
    redirects: int = 5
    retries: int = 2
    backoff_seconds: float = 1.0
    retry_after_seconds: float = 30.0
    allow_private: bool = False


class DownloadError(RecordError):
    """An address gave no image.

    Args:
        reason: str. `http 404` and the like, `timed out`, `too large`, `not an image`, `empty`, `encoded`,
            `broken off`, `refused`, `busy`, `no such host`, `no connection`, `certificate`, `too many redirects`,
            `private address`, `scheme` or `bad address`.
        detail: str. The address and what was seen; at most `MAX_DETAIL` characters are kept.
        permanent: bool. Whether it would fail again tomorrow, as far as can be told.
        passing: bool. Whether it may succeed when tried again at once.
        retry_after: float or None. Seconds that the server asks to be left alone for.
    """

    def __init__(
        self, reason: str, detail: str, *, permanent: bool, passing: bool = False, retry_after: float | None = None
    ) -> None:
        kept = detail if len(detail) <= MAX_DETAIL else f"{detail[:MAX_DETAIL]}…"
        super().__init__("download", reason, kept, permanent=permanent)
        self.passing = passing
        self.retry_after = retry_after


def download(url: str, limits: DownloadLimits | None = None) -> bytes:
    """The encoded image at an address.

    Args:
        url: str. http or https.
        limits: DownloadLimits. The default ones where None.

    Raises:
        RecordError: stage `download`, with a reason of `DownloadError`.
    """
    sink = BytesIO()
    download_into(url, sink, limits or DownloadLimits())
    return sink.getvalue()


def download_into(
    url: str, sink: BinaryIO, limits: DownloadLimits, rest: Callable[[float], object] = time.sleep
) -> None:
    """Write the encoded image at an address into a file, in memory that does not grow with it.

    Args:
        url: str. http or https.
        sink: binary file, to write and seek in. After an error it may hold a part.
        limits: DownloadLimits. What it may take.
        rest: function of seconds. Waits before another try.

    Raises:
        RecordError: as `download` does.
        OSError: of the file alone.
    """
    with Deadline(limits.total_seconds) as deadline:
        for pause in _pauses(limits):
            sink.seek(0)
            sink.truncate()
            try:
                # Only the file's own errors are raised past this loop as they are.
                with contextlib.closing(_received(url, limits, deadline)) as chunks:
                    for chunk in chunks:
                        sink.write(chunk)
                return
            except DownloadError as error:
                wait = _wait(error, pause, limits)
                if wait is None or wait >= deadline.left:
                    raise
            rest(wait)


def build_download_name(url: str) -> str:
    """The name of an address's image in a directory of downloads: the SHA-256 of the address, by its first two digits.

    It has no suffix, for the image's format is known only when it is there.
    """
    digest = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{digest[:2]}/{digest}"


def _pauses(limits: DownloadLimits) -> Iterator[float | None]:
    """The pause after each try that fails; None after the last."""
    for number in range(limits.retries):
        yield limits.backoff_seconds * 2**number
    yield None


def _wait(error: DownloadError, pause: float | None, limits: DownloadLimits) -> float | None:
    """How long to wait before another try; None where there is to be none."""
    asked = error.retry_after or 0.0
    if pause is None or not error.passing or asked > limits.retry_after_seconds:
        return None
    return max(pause, asked)


def _received(url: str, limits: DownloadLimits, deadline: Deadline) -> Generator[bytes, None, None]:
    """Yields the image in chunks; any exception that an answer causes is the failure of its address."""
    try:
        yield from _fetch(url, limits, deadline)
    except Exception as error:
        raise to_record_error("download", error) from error


def _fetch(url: str, limits: DownloadLimits, deadline: Deadline) -> Iterator[bytes]:
    target, label = url, strip_user(url)
    for _ in range(limits.redirects + 1):
        answer = _Answer(target, label, limits, deadline)
        try:
            following = answer.redirect()
            if following is None:
                answer.check()
                yield from answer.chunks()
                return
        finally:
            answer.close()
        target, label = following, f"{strip_user(url)} → {strip_query(following)}"
    raise DownloadError("too many redirects", f"{label}: more than {limits.redirects}", permanent=True)


class _Answer:
    """What a server answers to one request.

    Args:
        url: str. What is asked for.
        label: str. What messages call it.
        limits: DownloadLimits. What it may take.
        deadline: Deadline. Breaks it off.
    """

    def __init__(self, url: str, label: str, limits: DownloadLimits, deadline: Deadline) -> None:
        self._url, self._label = url, label
        self._limits, self._deadline = limits, deadline
        with _Told(label, deadline):
            deadline.check()
            address = parse_http_url(url)
            self._connection = connect(address, deadline, limits.connect_seconds, limits.allow_private)
            try:
                self._response = self._ask(address)
            except BaseException:
                self._connection.close()
                raise

    def close(self) -> None:
        """Let go of the connection."""
        self._response.close()
        self._connection.close()

    def redirect(self) -> str | None:
        """Where the server sends us on, if it does."""
        location = self._header("Location")
        if self._response.status not in _REDIRECTS or not location:
            return None
        # Headers are read as Latin-1, and some servers write UTF-8.
        location = location.encode("latin-1", "replace").decode("utf-8", "replace")
        try:
            return urljoin(self._url, location)
        except ValueError as error:
            raise self._failed("bad address", f"redirected to {strip_query(location)!r}: {error}") from error

    def check(self) -> None:
        """DownloadError where the head of the answer tells that no image within the limits follows."""
        status = self._response.status
        if status != http.client.OK:
            passing = status >= 500 or status in _PASSING
            raise DownloadError(
                f"http {status}",
                self._label,
                permanent=400 <= status < 500 and not passing,
                passing=passing,
                retry_after=_seconds(self._header("Retry-After")) if passing else None,
            )
        kind = self._kind()
        if not kind.startswith("image/") and kind not in _UNTYPED:
            raise self._failed("not an image", kind)
        encoding = self._header("Content-Encoding").strip().lower()
        if encoding not in ("", "identity"):
            raise self._failed("encoded", f"in {encoding}, which was not asked for")
        declared = self._header("Content-Length").strip()
        if declared.isdecimal() and len(declared) < 20 and int(declared) > self._limits.max_bytes:
            raise self._too_large()

    def chunks(self) -> Iterator[bytes]:
        """Yields the body."""
        total = 0
        while chunk := self._read():
            if not total and self._kind() in _UNTYPED and not has_image_signature(chunk):
                raise self._failed("not an image", f"no known format begins with {chunk[:8]!r}")
            total += len(chunk)
            if total > self._limits.max_bytes:
                raise self._too_large()
            yield chunk
        if not total:
            raise self._failed("empty", "zero bytes")

    def _ask(self, address: Url) -> BaseHTTPResponse:
        self._connection.timeout = self._limits.read_seconds
        self._connection.request("GET", address.request_uri, headers=_HEADERS, preload_content=False)
        return self._connection.getresponse()

    def _read(self) -> bytes:
        with _Told(self._label, self._deadline):
            chunk = bytearray()
            # `read` takes a chunk of a negative size for the whole rest of the connection, into memory.
            while len(chunk) < _CHUNK and (part := self._response.read1(_CHUNK - len(chunk), decode_content=False)):
                chunk += part
            # A connection that was broken off here looks like one that has ended.
            self._deadline.check()
            return bytes(chunk)

    def _kind(self) -> str:
        return self._header("Content-Type").partition(";")[0].strip().lower()

    def _header(self, name: str) -> str:
        return self._response.headers.get(name, "")

    def _failed(self, reason: str, why: str) -> DownloadError:
        return DownloadError(reason, f"{self._label}: {why}", permanent=True)

    def _too_large(self) -> DownloadError:
        return self._failed("too large", f"more than {self._limits.max_bytes} bytes")


class _Told:
    """Turns what the libraries raise over a network into DownloadError."""

    def __init__(self, label: str, deadline: Deadline) -> None:
        self._label, self._deadline = label, deadline

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, at: object) -> None:
        if isinstance(error, RecordError):
            detail = error.detail if self._label in error.detail else f"{self._label}: {error.detail}"
            raise DownloadError(error.reason, detail, permanent=error.permanent) from error
        if isinstance(error, Exception) and not self._deadline.left:
            raise DownloadError("timed out", f"{self._label}: not done in time", permanent=False) from error
        if isinstance(error, OSError | HTTPError | http.client.HTTPException | ValueError):
            reason, permanent, passing = _verdict(error)
            detail = f"{self._label}: {str(error) or type(error).__name__}"
            raise DownloadError(reason, detail, permanent=permanent, passing=passing) from error


def _verdict(error: Exception) -> tuple[str, bool, bool]:
    """The reason for an error of the network, whether it lasts, and whether it may pass at once."""
    if isinstance(error, TimeoutError | ReadTimeoutError):
        return "timed out", False, True
    if isinstance(error, socket.gaierror):
        lasts = error.errno in _NO_SUCH_HOST
        return "no such host", lasts, not lasts
    if isinstance(error, ssl.SSLCertVerificationError):
        # Not remembered: the fault may be this machine's certificates or its clock.
        return "certificate", False, False
    if isinstance(error, ConnectionRefusedError):
        return "refused", False, True
    if isinstance(error, ValueError):  # Also UnicodeError: of a host that no name can be.
        return "bad address", True, False
    if isinstance(error, HTTPError | http.client.HTTPException | ConnectionError):
        return "broken off", False, True
    return "no connection", False, True


def _seconds(retry_after: str) -> float | None:
    """The seconds that a Retry-After header asks for, as a number or a date (RFC 9110, section 10.2.3).

    None if it is neither. A date may name a day that no calendar has, or one outside the range of `datetime`.
    """
    text = retry_after.strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
