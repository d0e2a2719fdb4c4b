"""Implements `capt fetch urls`: downloads the images of lists of URLs, and writes WebDataset shards.

Several shards are downloaded at once, so that the slow hosts of one do not stop the others. The next run skips finished
shards, and keeps the downloaded images of unfinished ones.
"""

import contextlib
import logging
import queue
import shlex
import shutil
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from features.inputs.image_urls import DownloadLimits
from pipelines.beam.disk_errors import report_full_disk
from pipelines.datasets import get_columns, open_reader
from pipelines.datasets.urls import UrlReader
from pipelines.fetch_urls.download_queue import DownloadQueue
from pipelines.fetch_urls.finished_shards import ShardCounts, read_counts, write_shard
from pipelines.fetch_urls.image_download import ImageDownloads
from pipelines.fetch_urls.output_directory import UNFINISHED, hold_directory
from pipelines.fetch_urls.records import ShardRecords, divide_rows
from pipelines.fetch_urls.unfinished_shard import UnfinishedShard, UrlTask
from pipelines.ingest.host_turns import HostLimits
from pipelines.jobs.failure_limit import check_failures, parse_max_failures
from schemas.errors import CaptError, NoUsableImageError
from schemas.options.data import FetchUrls
from schemas.terminal.console import Printer
from schemas.terminal.progress import show_progress

# More shards hide more slow hosts, and take more memory: about 1 kB per record.
_MAX_UNFINISHED = 4
# Fewer downloads may all fail by chance, and those of fewer hosts because of the hosts.
_MIN_DOWNLOADS, _MIN_HOSTS = 20, 10
_WAKE_SECONDS = 0.2

_log = logging.getLogger("capt.fetch")


def fetch_urls(options: FetchUrls) -> dict[str, Any]:
    """Downloads the images of lists of URLs that the directory lacks, and writes them as WebDataset shards.

    Returns:
        Numbers of all records of the lists: `input`, `ok`, `failed` (`ok + failed == input`); `reasons` (failed records
        by reason); `unusable_captions` (captions that are missing, empty, too long or not valid text); `shards`,
        `image_bytes` and `tar_bytes`. Numbers of this run: `downloaded` (images), `kept` (images that an interrupted
        run had downloaded, of shards that it had not finished), `skipped_shards` (finished by earlier runs) and
        `seconds`. `directory`, and `next` (a command that uses the shards).

    Raises:
        UsageError: A list or an option is invalid, or the directory has other contents.
        TooManyFailuresError: More records failed than `max_failures` allows.
        NoUsableImageError: No image was downloaded.
        CaptError: The disk is full, a finished shard was changed, or no host can be reached.
    """
    started = time.monotonic()
    max_failures = parse_max_failures(options.max_failures)
    given = open_reader("urls", options.lists, columns=get_columns(options), caption_fields=options.caption_field)
    reader = cast(UrlReader, given)
    with report_full_disk(options.directory), hold_directory(options, reader.shards) as directory:
        job = _FetchJob(options, directory)
        job.run(divide_rows(reader, options.shard_size))
    counts = job.summarize()
    if not counts["input"]:
        raise CaptError("the lists have no rows", location=", ".join(options.lists), hint="Check the lists.")
    summary = {
        "directory": options.directory,
        **counts,
        "seconds": round(time.monotonic() - started, 3),
        "next": [
            f"capt prepare features --store STORE --dataset-type webdataset --images {shlex.quote(options.directory)}"
        ],
    }
    if not counts["ok"]:
        raise NoUsableImageError(counts["input"], next(iter(counts["reasons"])), summary)
    check_failures({**summary, "report": options.directory}, max_failures)
    return summary


def print_fetched(result: dict[str, Any]) -> None:
    printer = Printer()
    columns = ("input", "ok", "failed", "shards", "image_bytes")
    printer.table(f"records in {result['directory']}", (), columns, [tuple(result[name] for name in columns)])
    if result["reasons"]:
        printer.table("failed records", ("reason",), ("records",), list(result["reasons"].items()))
    this_run = ("downloaded", "kept", "skipped_shards")
    printer.line(", ".join(f"{name.replace('_', ' ')} {result[name]:,}" for name in this_run))
    if result["unusable_captions"]:
        printer.line(f"captions that are missing, empty, too long or not valid text: {result['unusable_captions']:,}")
    printer.line("A command that uses these shards:")
    for command in result["next"]:
        printer.line(f"  {command}")


class _FetchJob:
    """Downloads the images of shards, several at once, and writes each shard when its last download has ended."""

    def __init__(self, options: FetchUrls, directory: Path) -> None:
        self._directory = directory
        self._counts: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._kept = self._skipped = self._unfinished = 0
        self._ended: queue.SimpleQueue[UnfinishedShard] = queue.SimpleQueue()
        limits = DownloadLimits(
            max_bytes=options.max_image_bytes,
            allow_private=options.allow_private_addresses,
            heed_robots_tag=not options.ignore_robots_tag,
        )
        self._downloads = ImageDownloads(limits, options.max_image_pixels)
        host_limits = HostLimits(threads=options.num_threads)
        self._queue = DownloadQueue[UrlTask](self._downloads.run, limits, host_limits)

    def run(self, shards: Iterable[ShardRecords]) -> None:
        with (
            contextlib.closing(self._downloads),
            self._queue.start(),
            show_progress("downloading", None, "images", self._downloads.get_progress),
        ):
            for shard in shards:
                counts = read_counts(self._directory, shard.name)
                if counts:
                    self._skipped += 1
                    self._add(counts)
                    continue
                while self._unfinished == _MAX_UNFINISHED:
                    self._finish_one()
                self._begin(shard)
            while self._unfinished:
                self._finish_one()
        # A run that was killed may have left the images of a shard that it had finished.
        shutil.rmtree(self._directory / UNFINISHED, ignore_errors=True)

    def summarize(self) -> dict[str, Any]:
        return {
            "input": self._counts["records"],
            "ok": self._counts["ok"],
            "failed": self._reasons.total(),
            "reasons": dict(self._reasons.most_common()),
            "unusable_captions": self._counts["unusable_captions"],
            "shards": self._counts["shards"],
            "image_bytes": self._counts["image_bytes"],
            "tar_bytes": self._counts["tar_bytes"],
            "downloaded": self._downloads.succeeded,
            "kept": self._kept,
            "skipped_shards": self._skipped,
        }

    def _begin(self, shard: ShardRecords) -> None:
        unfinished = UnfinishedShard(shard, self._directory / UNFINISHED / shard.name, self._ended.put)
        self._unfinished += 1
        self._kept += unfinished.kept
        self._queue.add(unfinished.list_tasks())

    def _finish_one(self) -> None:
        """Waits for a shard whose downloads have ended, and writes it."""
        shard = None
        while shard is None:
            self._queue.check()
            # A signal that another thread received is handled when this thread runs again.
            with contextlib.suppress(queue.Empty):
                shard = self._ended.get(timeout=_WAKE_SECONDS)
        reasons, hosts = shard.count_passing_failures()
        if reasons.total() >= _MIN_DOWNLOADS and hosts >= _MIN_HOSTS:
            listed = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
            message = f"all downloads of shard {shard.name} failed for reasons that may pass ({listed})"
            hint = "Check the network and its name servers, then run the same command again."
            raise CaptError(message, location=str(self._directory), hint=hint)
        counts = write_shard(self._directory, shard)
        shard.remove()
        self._unfinished -= 1
        self._add(counts)
        _log.info("%s: %d of %d records are written.", shard.name, counts.ok, counts.records)

    def _add(self, counts: ShardCounts) -> None:
        self._counts.update({"shards": 1, **counts.model_dump(exclude={"reasons"})})
        self._reasons.update(counts.reasons)
