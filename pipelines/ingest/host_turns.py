"""Keeps the downloads from each host within the limits of politeness."""

import threading
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from features.inputs.image_urls import DownloadError, DownloadLimits
from schemas.defaults import DOWNLOAD_THREADS
from schemas.errors import RecordError
from schemas.secrets import strip_user

_UNREACHABLE = frozenset(("refused", "no connection", "timed out"))


@dataclass(frozen=True)
class HostLimits:
    """Politeness limits.

    Args:
        threads: Maximum number of simultaneous downloads per worker.
        connections: Maximum number of simultaneous downloads per host.
        pause_seconds: Minimum time between the starts of two downloads from a host.
        patience: Number of consecutive connection failures after which the other URLs of the host fail unrequested.
        rest_seconds: Maximum total of consecutive pauses before retries, including `Retry-After`. After it, the other
            URLs of the host fail unrequested.
    """

    threads: int = DOWNLOAD_THREADS
    connections: int = 2
    pause_seconds: float = 0.1
    patience: int = 10
    rest_seconds: float = 300.0


def get_host(url: str) -> str:
    """Returns the host of a URL; empty if the URL is invalid."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # The download reports the invalid URL.
        return ""


class HostTurns:
    """When a host may be requested next, and whether it may. Threads share it."""

    def __init__(self, limits: DownloadLimits, host_limits: HostLimits) -> None:
        self._limits, self._host_limits = limits, host_limits
        self._lock = threading.Lock()
        self._next = self._rested = 0.0
        self._unreachable = 0
        self._closed: tuple[str, str] | None = None

    @property
    def is_closed(self) -> bool:
        """Whether the host's other URLs fail unrequested."""
        return self._closed is not None

    def wait_for_turn(self, url: str) -> None:
        """Waits until a request to the host is allowed. DownloadError if none is allowed any more in this job."""
        with self._lock:
            if self._closed:
                reason, why = self._closed
                raise DownloadError(reason, f"{strip_user(url)}: not requested, because {why}", permanent=False)
            start = max(self._next, time.monotonic())
            self._next = start + self._host_limits.pause_seconds
        time.sleep(max(0.0, start - time.monotonic()))

    def rest(self, url: str, seconds: float) -> None:
        """Pauses all connections to the host, then waits for a turn."""
        with self._lock:
            until = time.monotonic() + seconds
            self._rested += max(0.0, until - max(self._next, time.monotonic()))
            self._next = max(self._next, until)
            if self._rested > self._host_limits.rest_seconds:
                why = f"the host refused requests for {self._host_limits.rest_seconds:.0f} seconds"
                self._closed = self._closed or ("busy", why)
        self.wait_for_turn(url)

    def record(self, error: RecordError | None) -> None:
        """Records the result of a download, and closes the host if it is unreachable or requests a long pause."""
        with self._lock:
            self._unreachable = self._unreachable + 1 if error and error.reason in _UNREACHABLE else 0
            if not (isinstance(error, DownloadError) and error.transient):
                self._rested = 0.0
            retry_after = (error.retry_after or 0.0) if isinstance(error, DownloadError) else 0.0
            if error and retry_after > self._limits.retry_after_seconds:
                self._closed = error.reason, f"the host requested a pause of {retry_after:.0f} seconds"
            elif error and self._unreachable == self._host_limits.patience:
                self._closed = error.reason, f"the host was unreachable {self._unreachable} times in a row"
