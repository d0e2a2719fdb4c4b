"""Lists the images of a dataset, and finds their files in `--images`."""

import contextlib
from collections.abc import Iterable, Iterator

from features.inputs import ListedFile, list_files
from features.inputs.image_files import is_image_name
from features.store import Dataset
from pipelines.datasets.base import CaptionEntry, DatasetReader, EmbeddedReader, ListingReader
from pipelines.datasets.limits import parse_limits
from pipelines.datasets.roots import remove_duplicate_roots
from pipelines.datasets.splits import Splitter, compute_caption_rank, compute_rank
from pipelines.ingest.download_images import get_download_directory
from pipelines.ingest.image_database import ImageDatabase
from pipelines.ingest.image_identity import IdentifiedImage, ImageIdentities
from pipelines.ingest.job_database import InputRecord
from schemas.errors import CaptError, RecordError
from schemas.options.prepare import PrepareFeatures


def list_inputs(
    database: ImageDatabase,
    reader: DatasetReader,
    options: PrepareFeatures,
    splitter: Splitter,
    stated: Splitter | None,
    dataset: Dataset,
) -> int:
    """Inserts the images of a dataset that the options select, with their files and splits.

    If the dataset has URLs, the first of `--images` is the download directory and may not exist yet. `stated` returns
    the split that the input states for an image; None if the input states no splits. Splits that a commit of `dataset`
    has assigned are kept. Returns the number of image files that no annotation names.
    """
    limits = parse_limits(options)
    images = options.images
    identities = database.identities
    with database.transaction():
        identities.insert(reader.read_images())
    downloads = get_download_directory(images[0]) if reader.has_urls else None
    listings: dict[str, Iterable[ListedFile]]
    if isinstance(reader, EmbeddedReader):
        listings = {images[0]: reader.list_files()}
    else:
        listings = {root: _list_root(root) for root in remove_duplicate_roots(images)}
    if downloads:
        listings[images[0]] = list_files(images[0]) if downloads.exists() else ()
    database.files.insert_files(listings)
    if isinstance(reader, ListingReader):
        with database.transaction():
            identities.insert(reader.read_listed_images(database.files.list_images()))
    database.insert_records(build_records(identities.list_images(), splitter, stated, options.seed))
    if limits.captions is not None:
        database.insert_captions(image_id for image_id, _ in _list_captions(identities, reader))
    if limits.sampled_captions is not None:
        database.insert_caption_ranks(rank_captions(_list_captions(identities, reader), options.seed))
    database.keep_assigned(dataset)
    return database.find_files(limits)


def _list_root(root: str) -> Iterator[ListedFile]:
    """Yields all files in a root of `--images`, which contains at least one file that may be an image."""
    has_images = False
    for file in list_files(root):
        has_images = has_images or is_image_name(file.name) is not False
        yield file
    if not has_images:
        raise CaptError("contains no image", location=root, hint="Check --images.")


def build_records(
    images: Iterable[IdentifiedImage], splitter: Splitter, stated: Splitter | None, seed: int
) -> Iterator[InputRecord]:
    """Yields the records of images. `stated` finds the splits that the input states; None if it states none."""
    for one in images:
        # A record that is not an image has no split to keep.
        values = one._asdict() | {"split": ""}
        hashed = values.pop("group") or one.image_id
        if one.split or not one.reason:
            values["split"] = splitter.assign(hashed, one.split)
        yield InputRecord(
            **values,
            rank=compute_rank(seed, one.image_id),
            stated=stated.find_stated(hashed, one.split) if values["split"] and stated else "",
            has_hashed_split=splitter.is_hashed(one.split),
        )


def rank_captions(captions: Iterable[tuple[str, str]], seed: int) -> Iterator[tuple[int, str, str]]:
    """Yields the rows of `JobDatabase.insert_caption_ranks`, given image ID and caption ID of each caption."""
    for image_id, caption_id in captions:
        yield compute_caption_rank(seed, image_id, caption_id), image_id, caption_id


def _list_captions(identities: ImageIdentities, reader: DatasetReader) -> Iterator[tuple[str, str]]:
    """Yields image ID and caption ID of the captions whose image is known."""
    for entry in reader.read_captions():
        if isinstance(entry, CaptionEntry):
            with contextlib.suppress(RecordError):
                yield identities.look_up(entry.document, entry.image_id), entry.caption_id
