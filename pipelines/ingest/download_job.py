"""The download job: addresses in, files in a directory of images out.

    DIR/ab/abcdef…       an image, by the SHA-256 of its address, written aside and renamed
    DIR/dead/07.jsonl    addresses that failed for good (`pipelines.ingest.failed_urls`)

What a killed run fetched is there, so the next walk finds it, and only the others are asked for.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

from features.io.atomic_files import TEMP_PREFIX
from pipelines.beam.disk_errors import report_full_disk
from pipelines.beam.scratch import hold_job_lock, open_scratch_plan
from pipelines.beam.work_units import read_progress, read_results, run_units, write_unit
from pipelines.ingest.download_images import BUCKETS, DOWNLOAD_UNIT_SCHEMA, DownloadImages
from pipelines.ingest.failed_urls import FailedUrl
from schemas.errors import UsageError
from schemas.terminal.progress import show_progress

# Many, for a unit is done when its largest host is, and a host is not asked faster by being in a small unit.
_UNIT_URLS = 1 << 18
_LOCK = ".downloading.lock"


def download_all(
    urls: Iterable[tuple[int, str]], count: int, worker: DownloadImages, work: Path, beam_options: Sequence[str]
) -> Iterator[FailedUrl]:
    """Fetch addresses; the ones that gave no image. One run at a time does, into one directory.

    Args:
        urls: iterable of (int, str). Addresses with the buckets of their hosts, by bucket.
        count: int. How many there are.
        worker: DownloadImages. What does a unit; its directory is made where it is missing.
        work: Path. Where plans lie.
        beam_options: sequence of str. Options of Beam and its runner.
    """
    directory = Path(worker.directory)
    units = min(BUCKETS, -(-count // _UNIT_URLS))
    with report_full_disk(str(directory)), hold_job_lock(directory / _LOCK), open_scratch_plan(work) as plan:
        for temporary in directory.glob(f"??/{TEMP_PREFIX}*"):
            temporary.unlink(missing_ok=True)
        for number, some in groupby(urls, lambda row: row[0] * units // BUCKETS):
            write_unit(plan, f"{number:05d}", ({"url": url} for _, url in some), DOWNLOAD_UNIT_SCHEMA)
        with show_progress("downloading", count, "images", lambda: read_progress(plan)):
            run_units(plan, worker, beam_options, "Download")
        for result in read_results(plan):
            yield from map(FailedUrl.model_validate, json.loads(result))


def download_directory(images: str) -> Path:
    """The directory that downloads go to, as `--images` names it; UsageError where it can be none."""
    path = Path(images)
    if "://" in images or (path.exists() and not path.is_dir()):
        raise UsageError("images are downloaded, and this is no directory", location=f"--images {images}")
    return path.absolute()
