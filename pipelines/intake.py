"""Intake: from what a command names to a ledger in which every record has its file, its content key and its status."""

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from features.downloads import DownloadLimits
from features.image_files import image_by_name
from features.progress import watching
from features.references import MAX_IMAGE_BYTES, Found, walk
from pipelines.dead_links import dead_links
from pipelines.download_job import download_all, download_directory
from pipelines.downloading import DownloadImages, bucket_of
from pipelines.hashing import HASH_UNIT, HASH_UNIT_ROWS, HashImages
from pipelines.identity import Identities, NamedImage
from pipelines.ledger import Ledger, Record
from pipelines.matching import distinct_roots
from pipelines.scratch import scratch_plan
from pipelines.sources import CaptionEntry, Source, WalkedSource
from pipelines.splits import Splitter, rank_of
from pipelines.units import done_so_far, results, run_units, write_unit
from schemas.errors import CaptError, RecordError

# Units whose hashes are entered at a time: every time waits for the disk, and others wait for the stat cache meanwhile.
UNITS_ENTERED = 64


@dataclass(frozen=True)
class Selection:
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


def enter_records(ledger: Ledger, source: Source, images: Sequence[str], selection: Selection) -> dict[str, int]:
    """Enter the source's images, with their files.

    Where the source has addresses, the first of `images` may be missing yet: it is where downloads go.

    Returns:
        `unannotated`, how many images were found that the source does not name, and `shared_ids`, how many of its ids
        stand for several images.
    """
    with ledger.transaction():
        ledger.identities.add(source.images())
    downloads = download_directory(images[0]) if ledger.identities.has_addresses() else None
    ledger.add_roots(images)
    for root in distinct_roots(images):
        if not (downloads and root == images[0]):
            ledger.add_found(root, walk_images(root))
        elif downloads.exists():
            ledger.add_found(root, walk(root))
    if isinstance(source, WalkedSource):
        with ledger.transaction():
            ledger.identities.add(source.images_among(ledger.walked_files()))
    ledger.identities.settle()
    ledger.add_records(_records(ledger.identities.images(), selection))
    if selection.limit_captions is not None:
        ledger.add_captions(_captioned(ledger.identities, source))
    unannotated = ledger.match()
    ledger.limit(selection.limit_images, selection.limit_captions)
    ledger.locate()
    return {"unannotated": unannotated, "shared_ids": ledger.identities.shared_ids()}


def walk_images(root: str) -> Iterator[Found]:
    """Walks a root of `--images`.

    Args:
        root: A directory, an archive, or an address of either.

    Yields:
        All files in it.

    Raises:
        CaptError: The root has no file that can be an image; or, as `walk`, it cannot be read.
    """
    has_images = False
    for found in walk(root):
        has_images = has_images or image_by_name(found.name) is not False
        yield found
    if not has_images:
        raise CaptError("it holds no image", where=root, mend="check --images")


def _records(images: Iterable[NamedImage], selection: Selection) -> Iterator[Record]:
    for one in images:
        # What is not an image has no split that could stay.
        split = "" if one.reason and not one.split else selection.splitter.split_of(one.image_id, one.split)
        yield Record(
            one.image_id,
            one.file_name,
            split,
            rank_of(selection.seed, one.image_id),
            one.root,
            one.url,
            one.label,
            selection.states.stated(one.image_id, one.split) if split and selection.states else "",
            selection.splitter.is_hashed(one.split),
            one.reason,
            one.detail,
        )


def _captioned(identities: Identities, source: Source) -> Iterator[str]:
    """The image of each caption."""
    for one in source.captions():
        if isinstance(one, CaptionEntry):
            with contextlib.suppress(RecordError):
                yield identities.image_of(one.document, one.image_id)


def recall_dead_links(ledger: Ledger, images: Sequence[str], max_bytes: int) -> None:
    """Let the addresses fail that are remembered as dead."""
    if ledger.count_wanted():
        dead = dead_links(download_directory(images[0]), max_bytes)
        ledger.enter_unfetched((link.url, link.reason, link.detail) for link in dead)


def download_records(
    ledger: Ledger, images: Sequence[str], work: Path, limits: DownloadLimits, beam_options: Sequence[str]
) -> int:
    """Download the images that have an address and no file, into the first of `images`; how many came."""
    count = ledger.count_wanted()
    if not count:
        return 0
    directory = download_directory(images[0])
    worker = DownloadImages(str(directory), limits)
    unfetched = download_all(ledger.wanted(bucket_of), count, worker, work, beam_options)
    ledger.enter_unfetched((one.url, one.reason, one.detail) for one in unfetched)
    came = ledger.count_wanted()
    ledger.locate_downloads(images[0], walk(str(directory)))
    return came


def hash_records(
    ledger: Ledger, work: Path, rehash: bool, beam_options: Sequence[str], max_bytes: int = MAX_IMAGE_BYTES
) -> None:
    """Give every record found its content key; `rehash` takes none from the stat cache."""
    if not rehash:
        ledger.recall_keys()
    references = ledger.unhashed()
    with scratch_plan(work) as plan:
        total = 0
        while some := list(islice(references, HASH_UNIT_ROWS)):
            write_unit(plan, f"{total // HASH_UNIT_ROWS:07d}", some, HASH_UNIT)
            total += len(some)
        with watching("hashing", total, "images", lambda: done_so_far(plan)):
            run_units(plan, HashImages(max_bytes), beam_options, "Hash")
        hashed = results(plan)
        while few := list(islice(hashed, UNITS_ENTERED)):
            ledger.enter_hashes(chain.from_iterable(map(json.loads, few)))
