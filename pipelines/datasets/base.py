"""Defines what a dataset reader returns: images, captions of images, and records that cannot be read."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, NamedTuple

from features.inputs import ListedFile
from features.text.lines import FailedRecord
from schemas.defaults import MAX_FAILURES
from schemas.manifests import LabelFormat


class CaptionEntry(NamedTuple):
    """A caption. Its IDs are those of its annotation file, `document`. `repaired` names the repair of its record."""

    image_id: str
    caption_id: str
    caption: str
    repaired: str = ""
    document: str = ""


class ImageEntry(NamedTuple):
    """An image of a dataset. A URL's `file_name` is `features.inputs.image_urls.build_download_name` of the URL.

    Attributes:
        image_id: ID. It identifies one image per annotation file, `document`.
        split: Published split; None if the dataset has no splits.
        label: Text in the image, if known (CAPTCHA).
        location: Position of the entry, in formats that list each image once: a repeated entry is a duplicate. Empty in
            formats that name an image with each of its captions.
        root: Label of its `--images` root, as in `ListedImage`; empty if an annotation names the file.
        group: Images of one group that have no published split get one split; empty if there is none.
        expected_hash: MD5, SHA-1 or SHA-256 that the file must have, in lowercase hexadecimal digits; empty for any.
    """

    image_id: str
    file_name: str
    split: str | None = None
    url: str = ""
    label: str = ""
    failure: FailedRecord | None = None
    document: str = ""
    location: str = ""
    root: str = ""
    group: str = ""
    expected_hash: str = ""


class ListedImage(NamedTuple):
    """An image file in `--images`.

    Attributes:
        name: Path in its root.
        root: Label of the root if two roots contain this path.
        has_known_name: Whether the encoding of the path is known.
    """

    name: str
    root: str = ""
    has_known_name: bool = True


class DatasetReader(ABC):
    """Reads one published format.

    Attributes:
        max_failures: Default of `--max-failures`.
        has_urls: Whether the images have URLs and are downloaded.
        label_format: Format of the label file that was read; None without one, and for a space and a line feed.
    """

    max_failures: ClassVar[str] = MAX_FAILURES
    has_urls: ClassVar[bool] = False
    label_format: LabelFormat | None = None

    @abstractmethod
    def read_images(self) -> Iterator[ImageEntry]:
        """Yields the images that the annotations name."""

    @abstractmethod
    def read_captions(self) -> Iterator[CaptionEntry | FailedRecord]:
        """Yields the captions in file order, and a `FailedRecord` for each that cannot be read."""

    def summarize(self) -> dict[str, Any]:
        """Returns what the files state beside their records, for the summary of the command, after reading them."""
        return {}


class ListingReader(DatasetReader):
    """Reads a format in which the image files define the dataset."""

    def read_images(self) -> Iterator[ImageEntry]:
        return iter(())

    def read_captions(self) -> Iterator[CaptionEntry | FailedRecord]:
        return iter(())

    @abstractmethod
    def read_listed_images(self, files: Iterable[ListedImage]) -> Iterator[ImageEntry]:
        """Yields the dataset's images, given all image files in `--images` in alphabetical order."""


class EmbeddedReader(DatasetReader):
    """Reads a format whose files contain images and captions, so that `--images` names them instead of directories.

    The files of images have the names of `ImageEntry.file_name`. If two files have one name, they are one image if
    their bytes are equal; otherwise the image is ambiguous.
    """

    @abstractmethod
    def list_files(self) -> Iterator[ListedFile]:
        """Yields the files of the images, after `read_images`."""


def build_failed_image(record: FailedRecord) -> ImageEntry:
    """Returns an image without a file that fails for the record's reason. Its ID is the record's location."""
    return ImageEntry(record.location, "", failure=record)
