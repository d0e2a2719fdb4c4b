"""Downloads the images that have a URL and no file, within the politeness limits of each host.

    DIR/ab/abcdef…       an image, named by the SHA-256 of its URL, written to a temporary file and renamed
    DIR/dead/07.jsonl    the permanently failed URLs of the hosts in bucket 7, one `FailedUrl` per line

All URLs of a host are in one work unit, so that its limits hold for the whole job. A resumed job finds the files of the
interrupted one and downloads only the others.
"""

import json
import threading
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from itertools import groupby
from pathlib import Path

import pyarrow as pa

from features.inputs import list_files
from features.inputs.image_urls import ROBOTS_TAG, DownloadLimits, build_download_name, download_into
from features.io.atomic_files import atomic_write
from features.io.host_addresses import AddressCache
from features.io.locks import wait_for_lock
from features.io.temporary_names import TEMP_PREFIX
from pipelines.beam.disk_errors import report_full_disk
from pipelines.beam.scratch import open_scratch_plan
from pipelines.beam.work_plans import Advance, read_progress, read_results, read_unit, write_unit
from pipelines.beam.work_units import run_units
from pipelines.ingest.host_turns import HostLimits, HostTurns, get_host
from pipelines.ingest.image_database import ImageDatabase
from schemas.errors import RecordError, UsageError
from schemas.frozen import Frozen
from schemas.options.prepare import PrepareFeatures
from schemas.terminal.progress import show_progress

DOWNLOAD_UNIT_SCHEMA = pa.schema([("url", pa.string())])

_BUCKETS = 256
# A unit takes as long as its largest host, and smaller units do not speed up a host.
_UNIT_URLS = 1 << 18
_WAKE_SECONDS = 0.2


class FailedUrl(Frozen):
    """A URL that returned no image, and why. An image too large for `max_bytes`, its limit, may fit a larger one."""

    url: str
    reason: str
    detail: str
    max_bytes: int


def get_download_directory(images: str) -> Path:
    """Returns the download directory that the first `--images` names. UsageError if it is not a local directory."""
    path = Path(images)
    if "://" in images or (path.exists() and not path.is_dir()):
        message = "the images are downloaded, and this is not a local directory"
        raise UsageError(message, location=f"--images {images}")
    return path.absolute()


def download_images(database: ImageDatabase, options: PrepareFeatures, work: Path, max_bytes: int) -> int:
    """Downloads the pending URLs into the first of `--images`, except those that failed permanently in earlier jobs.

    Returns the number of downloaded images. A dry run downloads nothing, and returns the number of pending URLs.
    """

    def insert(failed: Iterable[FailedUrl]) -> int:
        database.insert_failed_urls((one.url, one.reason, one.detail) for one in failed)
        return database.count_pending()

    directory, count = get_download_directory(options.images[0]), database.count_pending()
    limits = DownloadLimits(
        max_bytes=max_bytes,
        allow_private=options.allow_private_addresses,
        heed_robots_tag=not options.ignore_robots_tag,
    )
    if count and not options.retry_failed:
        count = insert(read_failed_urls(directory, limits))
    if options.dry_run or not count:
        return count
    urls, worker = database.list_pending(compute_host_bucket), DownloadImages(str(directory), limits)
    downloaded = insert(download_urls(urls, count, worker, work, options.beam_options))
    database.find_downloads(options.images[0], list_files(worker.directory))
    return downloaded


def download_urls(
    urls: Iterable[tuple[int, str]], count: int, worker: "DownloadImages", work: Path, beam_options: Sequence[str]
) -> Iterator[FailedUrl]:
    """Downloads URLs, and yields those that failed. Only one job at a time downloads into a directory.

    `urls` are bucket of the host and URL, by bucket, and `count` is their number. Work plans are written to `work`.
    """
    directory = Path(worker.directory)
    units = min(_BUCKETS, -(-count // _UNIT_URLS))
    lock = directory / ".downloading.lock"
    with report_full_disk(str(directory)), wait_for_lock(lock), open_scratch_plan(work) as plan:
        for temporary in directory.glob(f"??/{TEMP_PREFIX}*"):
            temporary.unlink(missing_ok=True)
        for number, some in groupby(urls, lambda row: row[0] * units // _BUCKETS):
            write_unit(plan, f"{number:05d}", ({"url": url} for _, url in some), DOWNLOAD_UNIT_SCHEMA)
        with show_progress("downloading", count, "images", lambda: read_progress(plan)):
            run_units(plan, worker, beam_options, "Download")
        for result in read_results(plan):
            yield from map(FailedUrl.model_validate, json.loads(result))


@dataclass(frozen=True)
class DownloadImages:
    """Downloads the URLs of one work unit into `directory`. The result is a JSON list of `FailedUrl`."""

    directory: str
    limits: DownloadLimits
    host_limits: HostLimits = field(default_factory=HostLimits)

    def __call__(self, unit: Path, advance: Advance) -> bytes:
        failed = _DownloadPool(self, (row["url"] for row in read_unit(unit)), advance).run()
        return json.dumps([one.model_dump() for one in failed]).encode()


def compute_host_bucket(url: str) -> int:
    """Returns a number from 0 to 255 that all URLs of a host share."""
    return sha256(get_host(url).encode("utf-8", "surrogatepass")).digest()[0]


class _Host(HostTurns):
    """The remaining URLs of a host."""

    def __init__(self, limits: DownloadLimits, host_limits: HostLimits) -> None:
        super().__init__(limits, host_limits)
        self.urls: deque[str] = deque()


class _DownloadPool:
    """Threads that download the URLs of a unit. Each thread serves one host at a time, so a slow host delays no other.

    The threads are daemons, so that an interrupted job ends without waiting for them.
    """

    def __init__(self, job: DownloadImages, urls: Iterable[str], advance: Advance) -> None:
        self._job, self._advance = job, advance
        self._directory = Path(job.directory)
        self._addresses = AddressCache()
        self._lock = threading.Lock()
        self._failed: list[FailedUrl] = []
        self._broken: BaseException | None = None
        hosts: defaultdict[str, _Host] = defaultdict(partial(_Host, job.limits, job.host_limits))
        for url in urls:
            hosts[get_host(url)].urls.append(url)
        self._lanes = deque[_Host]()
        for host in sorted(hosts.values(), key=lambda host: -len(host.urls)):
            self._lanes.extend([host] * min(job.host_limits.connections, len(host.urls)))

    def run(self) -> list[FailedUrl]:
        """Downloads all URLs. Returns the failed ones, by URL."""
        count = min(self._job.host_limits.threads, len(self._lanes))
        threads = [threading.Thread(target=self._work, name="download", daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                # A signal that another thread received is handled when this thread runs again.
                while thread.is_alive():
                    thread.join(_WAKE_SECONDS)
        except BaseException as error:
            self._broken = error
            raise
        if self._broken:
            raise self._broken
        return sorted(self._failed, key=lambda one: one.url)

    def _work(self) -> None:
        try:
            while self._broken is None:
                with self._lock:
                    if not self._lanes:
                        return
                    host = self._lanes.popleft()
                self._serve(host)
        except BaseException as error:
            self._broken = error

    def _serve(self, host: _Host) -> None:
        while self._broken is None:
            with self._lock:
                if not host.urls:
                    return
                url = host.urls.popleft()
            error = self._download(host, url)
            with self._lock:
                if error:
                    limit = self._job.limits.max_bytes
                    failed = FailedUrl(url=url, reason=error.reason, detail=error.detail, max_bytes=limit)
                    self._failed.append(failed)
                    if error.permanent:
                        record_failed_url(self._directory, compute_host_bucket(url), failed)
                self._advance(1, error is not None)

    def _download(self, host: _Host, url: str) -> RecordError | None:
        path = self._directory / build_download_name(url)
        if path.exists():
            return None
        try:
            host.wait_for_turn(url)
            with atomic_write(path) as temporary, temporary.open("wb") as file:
                download_into(url, file, self._job.limits, partial(host.rest, url), self._addresses)
        except RecordError as error:
            host.record(error)
            return error
        host.record(None)
        return None


# === Permanently failed URLs ===


def record_failed_url(directory: Path, bucket: int, failed: FailedUrl) -> None:
    """Appends a permanently failed URL to the file of its bucket. Only one thread at a time may do so per bucket."""
    path = directory / "dead" / f"{bucket:02x}.jsonl"
    path.parent.mkdir(exist_ok=True)
    with path.open("ab+") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 1))
        # An interrupted job may have left an incomplete line.
        end = b"\n" if file.read(1) not in (b"", b"\n") else b""
        file.write(end + failed.model_dump_json().encode() + b"\n")


def read_failed_urls(directory: Path, limits: DownloadLimits) -> Iterator[FailedUrl]:
    """Yields the permanently failed URLs, except those that these limits may accept."""
    for path in sorted((directory / "dead").glob("*.jsonl")):
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    failed = FailedUrl.model_validate_json(line)
                except ValueError:  # An incomplete line.
                    continue
                if not _may_accept(limits, failed):
                    yield failed


def _may_accept(limits: DownloadLimits, failed: FailedUrl) -> bool:
    """Returns whether an image was too large for a smaller limit, or refused for a header that is ignored now."""
    if failed.reason == ROBOTS_TAG:
        return not limits.heed_robots_tag
    return failed.reason == "too large" and limits.max_bytes > failed.max_bytes
