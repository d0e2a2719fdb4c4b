"""Intake: from what a command names to a ledger in which every record has its file, its content key and its status."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from features.progress import watching
from features.references import MAX_IMAGE_BYTES, walk
from pipelines.hashing import HASH_UNIT, HASH_UNIT_ROWS, HashImages
from pipelines.ledger import Ledger
from pipelines.scratch import scratch
from pipelines.sources import Source
from pipelines.splits import Splitter, rank_of
from pipelines.units import done_so_far, results, run_units, write_unit


@dataclass(frozen=True)
class Selection:
    """Which images of a source a run takes, and into which splits.

    Args:
        splitter: Splitter. Assigns splits.
        seed: int. Decides which images a limit takes.
        limit_images: int or None. Images at most.
        limit_captions: int or None. As many images as have at most so many captions together.
    """

    splitter: Splitter
    seed: int = 0
    limit_images: int | None = None
    limit_captions: int | None = None


def enter_records(ledger: Ledger, source: Source, images: Sequence[str], selection: Selection) -> int:
    """Enter the source's images, with their files; how many images were found that the source does not name."""
    ledger.add_found(chain.from_iterable(walk(root) for root in images))
    splitter, seed = selection.splitter, selection.seed
    if source.lists_images:
        named = ((entry.image_id, entry.file_name, entry.split) for entry in source.images())
    else:
        named = ((name, name, None) for name in ledger.found_images())
    ledger.add_records(
        (image_id, name, splitter.split_of(image_id, own), rank_of(seed, image_id)) for image_id, name, own in named
    )
    if selection.limit_captions is not None:
        ledger.add_captions(entry.image_id for entry in source.captions())
    unannotated = ledger.unannotated()
    ledger.limit(selection.limit_images, selection.limit_captions)
    ledger.locate()
    return unannotated


def hash_records(
    ledger: Ledger, work: Path, rehash: bool, beam_options: Sequence[str], max_bytes: int = MAX_IMAGE_BYTES
) -> None:
    """Give every record found its content key; `rehash` takes none from the stat cache."""
    if not rehash:
        ledger.recall_keys()
    references = ledger.unhashed()
    with scratch(work) as plan:
        total = 0
        while some := list(islice(references, HASH_UNIT_ROWS)):
            write_unit(plan, f"{total // HASH_UNIT_ROWS:07d}", some, HASH_UNIT)
            total += len(some)
        with watching("hashing", total, "images", lambda: done_so_far(plan)):
            run_units(plan, HashImages(max_bytes), beam_options, "Hash")
        for result in results(plan):
            ledger.enter_hashes(json.loads(result))
