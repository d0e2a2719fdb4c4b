"""Downloads one image to a file, and checks it as `capt prepare` would."""

import hashlib
import os
import threading
from functools import partial
from typing import BinaryIO

from features.images.decode import find_suffix, open_image, raise_pixel_limit
from features.inputs.image_urls import DownloadLimits, download_into
from features.io.host_addresses import AddressCache
from pipelines.fetch_urls.unfinished_shard import Outcome, UrlTask
from pipelines.ingest.hash_images import check_hash
from pipelines.ingest.host_turns import HostTurns
from schemas.errors import RecordError
from schemas.secrets import strip_user


class ImageDownloads:
    """Downloads images in any number of threads, and counts them. Only one thread per core has an image in memory."""

    def __init__(self, limits: DownloadLimits, max_pixels: int) -> None:
        self._limits, self._max_pixels = limits, max_pixels
        self._addresses = AddressCache()
        self._decoders = threading.BoundedSemaphore(os.cpu_count() or 1)
        self._lock = threading.Lock()
        self.succeeded = self.failed = 0
        self._is_closed = False
        raise_pixel_limit(max_pixels)

    def run(self, host: HostTurns, task: UrlTask) -> None:
        """Downloads the image of a task, and inserts the outcome into its shard."""
        try:
            outcome = self._download(host, task)
        except RecordError as error:
            outcome = Outcome.from_error(task.record.key, error)
        with self._lock:
            if self._is_closed:
                return
            if outcome.reason:
                task.path.unlink(missing_ok=True)
            self.succeeded += not outcome.reason
            self.failed += bool(outcome.reason)
            task.shard.insert(outcome)

    def close(self) -> None:
        """Keeps the downloads under way from writing: another run of this process may hold the directory next."""
        with self._lock:
            self._is_closed = True

    def get_progress(self) -> tuple[int, str]:
        """Returns the number of downloads that have ended, and a note."""
        return self.succeeded + self.failed, f"{self.failed:,} failed" if self.failed else ""

    def _download(self, host: HostTurns, task: UrlTask) -> Outcome:
        try:
            host.wait_for_turn(task.url)
            with self._open(task) as file:
                download_into(task.url, file, self._limits, partial(host.rest, task.url), self._addresses)
        except RecordError as error:
            host.record(error)
            raise
        host.record(None)
        with self._decoders:
            return self._examine(task)

    def _open(self, task: UrlTask) -> BinaryIO:
        """Opens a new file. A download of an interrupted run may still write to the file that had the name."""
        with self._lock:
            if self._is_closed:
                raise RecordError("download", "interrupted", strip_user(task.url), permanent=False)
            task.path.unlink(missing_ok=True)
            return task.path.open("xb")

    def _examine(self, task: UrlTask) -> Outcome:
        """Describes a downloaded image. RecordError if it has another hash than expected, or cannot be decoded."""
        data = task.path.read_bytes()
        check_hash(data, task.record.expected_hash, strip_user(task.url))
        image = open_image(data, max_pixels=self._max_pixels)
        return Outcome(
            key=task.record.key,
            sha256=hashlib.sha256(data).hexdigest(),
            suffix=find_suffix(data),
            bytes=len(data),
            width=image.width,
            height=image.height,
        )
