"""What a source dataset is: images by name, captions by image, splits where the dataset has its own."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable


class CaptionEntry(NamedTuple):
    """A caption of a dataset. Its split is its image's.

    Args:
        image_id: Id of its image in its annotation file.
        caption_id: Its id within its image.
        caption: The text as published.
        repaired: What was mended.
        document: Its annotation file.
    """

    image_id: str
    caption_id: str
    caption: str
    repaired: str = ""
    document: str = ""


@dataclass(frozen=True)
class FailedRecord:
    """What stands where a record should and cannot be read as one.

    Args:
        place: str. File and place in it, `captions.csv:17`.
        reason: str. A few words that group like faults, such as `no separator`.
        detail: str. What stands there.
    """

    place: str
    reason: str
    detail: str


class ImageEntry(NamedTuple):
    """An image that a dataset names.

    Args:
        image_id: str. Its id.
        file_name: str. Its file's name; where it has an address, `features.references.downloads.build_download_name` of
            that.
        split: str or None. Its split, where the dataset has splits.
        url: str. Its address, where it has one.
        label: str. The word that it shows, where that is told.
        fault: Malformed or None. Why it is no image of the dataset all the same.
        document: str. The annotation file that names it. An id means one image within it.
        place: str. Its place in a file of a format that lists each image once; an entry that comes again is counted
            as a duplicate. Empty in formats that name an image with each of its captions.
        root: str. The root that its file lies in, as a `ListedImage` has it; empty where an annotation names the file.
    """

    image_id: str
    file_name: str
    split: str | None = None
    url: str = ""
    label: str = ""
    fault: FailedRecord | None = None
    document: str = ""
    place: str = ""
    root: str = ""


class ListedImage(NamedTuple):
    """An image file that was found in `--images`.

    Args:
        name: Path relative to its root.
        root: Label of its root if another root has a file of this name; else empty.
    """

    name: str
    root: str = ""


def set_document(
    document: str, entries: Iterable[CaptionEntry | FailedRecord]
) -> Iterator[CaptionEntry | FailedRecord]:
    """Yields the captions of an annotation file with the file's name.

    Args:
        document: The annotation file.
        entries: Its captions, and what cannot be read as one.
    """
    return (one if isinstance(one, FailedRecord) else one._replace(document=document) for one in entries)


def build_failed_image(malformed: FailedRecord) -> ImageEntry:
    """Returns the image that stands for a record that cannot be read as one.

    Args:
        malformed: The record.

    Returns:
        An image without a file, which fails for the record's reason. Its id is the record's place.
    """
    return ImageEntry(malformed.place, "", fault=malformed)


class DatasetReader(Protocol):
    """A dataset as published.

    Attributes:
        max_failures: str. The share of records that may fail where `--max-failures` says nothing, such as `5%`.
    """

    max_failures: str

    def images(self) -> Iterator[ImageEntry]:
        """The images that the dataset names."""

    def captions(self) -> Iterator[CaptionEntry | FailedRecord]:
        """The captions of those images, in the files' order, with what cannot be read as one."""


@runtime_checkable
class ListingReader(DatasetReader, Protocol):
    """A dataset that has images by their files' names, besides those that it lists, if any."""

    def images_among(self, files: Iterable[ListedImage]) -> Iterator[ImageEntry]:
        """The images of the dataset, from all image files found, which come in alphabetical order."""
