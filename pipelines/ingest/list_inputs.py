"""Intake: from what a command names to a ledger in which every record has its file, its content key and its status."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from features.references import MAX_IMAGE_BYTES, ListedFile, list_files
from features.references.downloads import DownloadLimits
from features.references.image_files import is_image_name
from pipelines.beam.scratch import open_scratch_plan
from pipelines.beam.work_units import read_progress, read_results, run_units, write_unit
from pipelines.datasets import CaptionEntry, DatasetReader, ListingReader
from pipelines.datasets.splits import Splitter, compute_rank
from pipelines.ingest.download_images import DownloadImages, compute_host_bucket
from pipelines.ingest.download_job import download_all, download_directory
from pipelines.ingest.failed_urls import read_failed_urls
from pipelines.ingest.hash_images import HASH_UNIT_ROWS, HASH_UNIT_SCHEMA, HashImages
from pipelines.ingest.image_identity import IdentifiedImage, ImageIdentities
from pipelines.ingest.job_database import InputRecord, JobDatabase
from pipelines.ingest.name_matching import remove_duplicate_roots
from schemas.errors import CaptError, RecordError
from schemas.terminal.progress import show_progress

# Units whose hashes are entered at a time: every time waits for the disk, and others wait for the stat cache meanwhile.
UNITS_PER_INSERT = 64


@dataclass(frozen=True)
class ImageSelection:
    """Which images of a source a run takes, and into which splits.

    Args:
        splitter: Splitter. Assigns splits.
        states: Splitter or None. Says which splits the input states; None where it states none.
        seed: int. Decides which images a limit takes.
        limit_images: int or None. Images at most.
        limit_captions: int or None. As many images as have at most so many captions together.
    """

    splitter: Splitter
    states: Splitter | None
    seed: int = 0
    limit_images: int | None = None
    limit_captions: int | None = None


def list_inputs(
    job_database: JobDatabase, source: DatasetReader, images: Sequence[str], selection: ImageSelection
) -> dict[str, int]:
    """Enter the source's images, with their files.

    Where the source has addresses, the first of `images` may be missing yet: it is where downloads go.

    Returns:
        `unannotated`, how many images were found that the source does not name, and `shared_ids`, how many of its ids
        stand for several images.
    """
    with job_database.transaction():
        job_database.identities.add(source.read_images())
    downloads = download_directory(images[0]) if job_database.identities.has_addresses() else None
    job_database.add_roots(images)
    for root in remove_duplicate_roots(images):
        if not (downloads and root == images[0]):
            job_database.add_found(root, list_root(root))
        elif downloads.exists():
            job_database.add_found(root, list_files(root))
    if isinstance(source, ListingReader):
        with job_database.transaction():
            job_database.identities.add(source.read_listed_images(job_database.walked_files()))
    job_database.identities.settle()
    job_database.add_records(_records(job_database.identities.images(), selection))
    if selection.limit_captions is not None:
        job_database.add_captions(_captioned(job_database.identities, source))
    unannotated = job_database.match()
    job_database.limit(selection.limit_images, selection.limit_captions)
    job_database.locate()
    return {"unannotated": unannotated, "shared_ids": job_database.identities.shared_ids()}


def list_root(root: str) -> Iterator[ListedFile]:
    """Walks a root of `--images`.

    Args:
        root: A directory, an archive, or an address of either.

    Yields:
        All files in it.

    Raises:
        CaptError: The root has no file that can be an image; or, as `walk`, it cannot be read.
    """
    has_images = False
    for found in list_files(root):
        has_images = has_images or is_image_name(found.name) is not False
        yield found
    if not has_images:
        raise CaptError("it holds no image", location=root, hint="check --images")


def _records(images: Iterable[IdentifiedImage], selection: ImageSelection) -> Iterator[InputRecord]:
    for one in images:
        # What is not an image has no split that could stay.
        split = "" if one.reason and not one.split else selection.splitter.assign(one.image_id, one.split)
        yield InputRecord(
            one.image_id,
            one.file_name,
            split,
            compute_rank(selection.seed, one.image_id),
            one.root,
            one.url,
            one.label,
            selection.states.find_stated(one.image_id, one.split) if split and selection.states else "",
            selection.splitter.is_hashed(one.split),
            one.reason,
            one.detail,
        )


def _captioned(identities: ImageIdentities, source: DatasetReader) -> Iterator[str]:
    """The image of each caption."""
    for one in source.read_captions():
        if isinstance(one, CaptionEntry):
            with contextlib.suppress(RecordError):
                yield identities.image_of(one.document, one.image_id)


def skip_failed_urls(job_database: JobDatabase, images: Sequence[str], max_bytes: int) -> None:
    """Let the addresses fail that are remembered as dead."""
    if job_database.count_wanted():
        dead = read_failed_urls(download_directory(images[0]), max_bytes)
        job_database.enter_unfetched((link.url, link.reason, link.detail) for link in dead)


def download_images(
    job_database: JobDatabase, images: Sequence[str], work: Path, limits: DownloadLimits, beam_options: Sequence[str]
) -> int:
    """Download the images that have an address and no file, into the first of `images`; how many came."""
    count = job_database.count_wanted()
    if not count:
        return 0
    directory = download_directory(images[0])
    worker = DownloadImages(str(directory), limits)
    unfetched = download_all(job_database.wanted(compute_host_bucket), count, worker, work, beam_options)
    job_database.enter_unfetched((one.url, one.reason, one.detail) for one in unfetched)
    came = job_database.count_wanted()
    job_database.locate_downloads(images[0], list_files(str(directory)))
    return came


def hash_images(
    job_database: JobDatabase, work: Path, rehash: bool, beam_options: Sequence[str], max_bytes: int = MAX_IMAGE_BYTES
) -> None:
    """Give every record found its content key; `rehash` takes none from the stat cache."""
    if not rehash:
        job_database.recall_keys()
    references = job_database.unhashed()
    with open_scratch_plan(work) as plan:
        total = 0
        while some := list(islice(references, HASH_UNIT_ROWS)):
            write_unit(plan, f"{total // HASH_UNIT_ROWS:07d}", some, HASH_UNIT_SCHEMA)
            total += len(some)
        with show_progress("hashing", total, "images", lambda: read_progress(plan)):
            run_units(plan, HashImages(max_bytes), beam_options, "Hash")
        hashed = read_results(plan)
        while few := list(islice(hashed, UNITS_PER_INSERT)):
            job_database.enter_hashes(chain.from_iterable(map(json.loads, few)))
