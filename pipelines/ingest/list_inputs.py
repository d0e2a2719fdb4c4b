"""Lists the images of a dataset, and finds their files in `--images`."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from features.inputs import ListedFile, list_files
from features.inputs.image_files import is_image_name
from pipelines.datasets.base import CaptionEntry, DatasetReader, ListingReader
from pipelines.datasets.splits import Splitter, compute_rank
from pipelines.ingest.download_images import get_download_directory
from pipelines.ingest.image_database import ImageDatabase, InputRecord
from pipelines.ingest.image_identity import IdentifiedImage, ImageIdentities
from pipelines.ingest.name_matching import remove_duplicate_roots
from schemas.errors import CaptError, RecordError


@dataclass(frozen=True)
class ImageSelection:
    """Selects images of a dataset, and assigns their splits.

    Args:
        splitter: Assigns splits.
        stated: Returns the split that the input states for an image; None if the input states no splits.
        seed: Decides which images the limits select.
        limit_images: Maximum number of images, or None.
        limit_captions: Maximum number of captions of the selected images, or None.
    """

    splitter: Splitter
    stated: Splitter | None
    seed: int = 0
    limit_images: int | None = None
    limit_captions: int | None = None


def list_inputs(
    database: ImageDatabase, reader: DatasetReader, images: Sequence[str], selection: ImageSelection
) -> int:
    """Inserts the selected images of a dataset, with their files.

    Args:
        database: An empty job database.
        reader: The dataset.
        images: `--images`. If the dataset has URLs, the first one is the download directory and may not exist yet.
        selection: Selects the images.

    Returns:
        The number of image files that no annotation names.
    """
    identities = database.identities
    with database.transaction():
        identities.insert(reader.read_images())
    downloads = get_download_directory(images[0]) if identities.has_urls() else None
    listings: dict[str, Iterable[ListedFile]] = {root: list_root(root) for root in remove_duplicate_roots(images)}
    if downloads:
        listings[images[0]] = list_files(images[0]) if downloads.exists() else ()
    database.files.insert_files(listings)
    if isinstance(reader, ListingReader):
        with database.transaction():
            identities.insert(reader.read_listed_images(database.files.list_images()))
    database.insert_records(_build_records(identities.list_images(), selection))
    if selection.limit_captions is not None:
        database.insert_captions(_list_captioned_images(identities, reader))
    return database.find_files(selection.limit_images, selection.limit_captions)


def list_root(root: str) -> Iterator[ListedFile]:
    """Yields all files in a root of `--images`: a directory, an archive, or a URI of either.

    Raises:
        CaptError: The root cannot be read, or contains no file that may be an image.
    """
    has_images = False
    for file in list_files(root):
        has_images = has_images or is_image_name(file.name) is not False
        yield file
    if not has_images:
        raise CaptError("contains no image", location=root, hint="Check --images.")


def _build_records(images: Iterable[IdentifiedImage], selection: ImageSelection) -> Iterator[InputRecord]:
    for one in images:
        # A record that is not an image has no split to keep.
        split = "" if one.reason and not one.split else selection.splitter.assign(one.image_id, one.split)
        stated = selection.stated.find_stated(one.image_id, one.split) if split and selection.stated else ""
        yield InputRecord(
            one.image_id,
            one.file_name,
            split,
            compute_rank(selection.seed, one.image_id),
            one.root,
            one.url,
            one.label,
            stated,
            selection.splitter.is_hashed(one.split),
            one.reason,
            one.detail,
        )


def _list_captioned_images(identities: ImageIdentities, reader: DatasetReader) -> Iterator[str]:
    """Yields the image ID of each caption."""
    for entry in reader.read_captions():
        if isinstance(entry, CaptionEntry):
            with contextlib.suppress(RecordError):
                yield identities.look_up(entry.document, entry.image_id)
