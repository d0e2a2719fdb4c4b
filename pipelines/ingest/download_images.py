"""The download job's step: the addresses of one unit become files, each host asked politely.

A host's addresses lie in one unit, so that what is promised to it holds across a whole run.
"""

import json
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import pyarrow as pa

from features.io.atomic_files import atomic_write
from features.references.downloads import DownloadError, DownloadLimits, build_download_name, download_into
from pipelines.beam.work_units import Advance, read_unit
from pipelines.ingest.failed_urls import FailedUrl, record_failed_urls
from schemas.errors import RecordError
from schemas.secrets import strip_user

DOWNLOAD_UNIT_SCHEMA = pa.schema([("url", pa.string())])
BUCKETS = 256

_UNREACHED = frozenset(("refused", "no connection", "timed out"))


@dataclass(frozen=True)
class HostLimits:
    """How hosts are asked.

    Args:
        threads: int. Downloads at once, of a worker.
        connections: int. Downloads at once from one host.
        pause_seconds: float. Between the starts of two from one host, at least.
        patience: int. After so many failures to reach a host in a row the rest of its addresses fail unasked.
        rest_seconds: float. Seconds that pauses before further tries may take in a row, `Retry-After` included. Then
            the rest of the host's addresses fail unasked.
    """

    threads: int = 32
    connections: int = 2
    pause_seconds: float = 0.1
    patience: int = 10
    rest_seconds: float = 300.0


@dataclass(frozen=True)
class DownloadImages:
    """Downloads the addresses of one unit; the result is a JSON list of `Unfetched`, the ones that gave no image.

    Args:
        directory: str. Where images go.
        limits: DownloadLimits. What one download may take.
        manners: Manners. How hosts are asked.
    """

    directory: str
    limits: DownloadLimits
    manners: HostLimits = field(default_factory=HostLimits)

    def __call__(self, unit: Path, advance: Advance) -> bytes:
        """The result of the unit."""
        unfetched = _Crew(self, (row["url"] for row in read_unit(unit)), advance).run()
        return json.dumps([one.model_dump() for one in unfetched]).encode()


def compute_host_bucket(url: str) -> int:
    """A number in 0…255 that all addresses of one host share."""
    return sha256(_host_of(url).encode("utf-8", "surrogatepass")).digest()[0]


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # No URL, as its download will tell.
        return ""


class _Host:
    """One host's addresses still to be fetched, and when it may be asked next."""

    def __init__(self, limits: DownloadLimits, manners: HostLimits) -> None:
        self.urls: deque[str] = deque()
        self._limits, self._manners = limits, manners
        self._lock = threading.Lock()
        self._next = 0.0
        self._unreached = 0
        self._rested = 0.0
        self._closed: tuple[str, str] | None = None

    def turn(self, url: str) -> None:
        """Wait until the host may be asked for an address; DownloadError where it is not to be asked any more."""
        with self._lock:
            if self._closed:
                reason, why = self._closed
                raise DownloadError(reason, f"{strip_user(url)}: not asked, {why}", permanent=False)
            start = max(self._next, time.monotonic())
            self._next = start + self._manners.pause_seconds
        time.sleep(max(0.0, start - time.monotonic()))

    def rest(self, url: str, seconds: float) -> None:
        """Leave the host alone for so long, on every connection, then wait for a turn."""
        with self._lock:
            until = time.monotonic() + seconds
            self._rested += max(0.0, until - max(self._next, time.monotonic()))
            self._next = max(self._next, until)
            if self._rested > self._manners.rest_seconds:
                why = (
                    f"for the host was left alone for {self._manners.rest_seconds:.0f} seconds and answers nothing else"
                )
                self._closed = self._closed or ("busy", why)
        self.turn(url)

    def note(self, error: RecordError | None) -> None:
        """Take into account how a download ended: the host may want to be left alone, or be out of reach."""
        with self._lock:
            self._unreached = self._unreached + 1 if error and error.reason in _UNREACHED else 0
            if not (isinstance(error, DownloadError) and error.transient):
                self._rested = 0.0
            asked = (error.retry_after or 0.0) if isinstance(error, DownloadError) else 0.0
            if error and asked > self._limits.retry_after_seconds:
                self._closed = error.reason, f"for the host wants to be left alone for {asked:.0f} seconds"
            elif error and self._unreached == self._manners.patience:
                self._closed = error.reason, f"for the host was out of reach {self._unreached} times in a row"


class _Crew:
    """Threads that fetch a unit's addresses, each on one host at a time, so that a slow host keeps no other waiting.

    They are daemons: the end of an interrupted run does not wait for them.
    """

    def __init__(self, job: DownloadImages, urls: Iterable[str], advance: Advance) -> None:
        self._job, self._advance = job, advance
        self._directory = Path(job.directory)
        self._lock = threading.Lock()
        self._unfetched: list[FailedUrl] = []
        self._broken: BaseException | None = None
        hosts: dict[str, _Host] = {}
        for url in urls:
            name = _host_of(url)
            if name not in hosts:
                hosts[name] = _Host(job.limits, job.manners)
            hosts[name].urls.append(url)
        largest_first = sorted(hosts.values(), key=lambda host: -len(host.urls))
        self._lanes = deque(host for host in largest_first for _ in range(min(job.manners.connections, len(host.urls))))

    def run(self) -> list[FailedUrl]:
        """Fetch them all; the ones that gave no image, by address."""
        count = min(self._job.manners.threads, len(self._lanes))
        threads = [threading.Thread(target=self._work, name="download", daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException as error:
            self._broken = error
            raise
        if self._broken:
            raise self._broken
        return sorted(self._unfetched, key=lambda one: one.url)

    def _work(self) -> None:
        try:
            while host := self._next_host():
                self._serve(host)
        except BaseException as error:
            self._broken = error

    def _next_host(self) -> _Host | None:
        with self._lock:
            return self._lanes.popleft() if self._lanes and self._broken is None else None

    def _serve(self, host: _Host) -> None:
        while self._broken is None:
            with self._lock:
                if not host.urls:
                    return
                url = host.urls.popleft()
            error = self._fetch(host, url)
            with self._lock:
                if error:
                    self._enter(url, error)
                self._advance(1, error is not None)

    def _fetch(self, host: _Host, url: str) -> RecordError | None:
        path = self._directory / build_download_name(url)
        if path.exists():
            return None
        try:
            host.turn(url)
            with atomic_write(path) as temporary, temporary.open("wb") as file:
                download_into(url, file, self._job.limits, partial(host.rest, url))
        except RecordError as error:
            host.note(error)
            return error
        host.note(None)
        return None

    def _enter(self, url: str, error: RecordError) -> None:
        link = FailedUrl(url=url, reason=error.reason, detail=error.detail, max_bytes=self._job.limits.max_bytes)
        self._unfetched.append(link)
        if error.permanent:
            record_failed_urls(self._directory, compute_host_bucket(url), link)
