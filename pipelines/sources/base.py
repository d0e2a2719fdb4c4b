"""What a source dataset is: images by name, captions by image, splits where the dataset has its own."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class ImageEntry(NamedTuple):
    """An image that a dataset names: its id, its file's name, its own split or none, its address where it has one.

    Where there is an address, the name is `features.downloads.downloaded_name` of it.
    """

    image_id: str
    file_name: str
    split: str | None = None
    url: str = ""


class CaptionEntry(NamedTuple):
    """A caption of a dataset: ids, the text as published, and what was mended. Its split is its image's."""

    image_id: str
    caption_id: str
    caption: str
    repaired: str = ""


@dataclass(frozen=True)
class Malformed:
    """What stands where a record should and cannot be read as one.

    Args:
        place: str. File and place in it, `captions.csv:17`.
        reason: str. A few words that group like faults, such as `no separator`.
        detail: str. What stands there.
    """

    place: str
    reason: str
    detail: str


class Source(Protocol):
    """A dataset as published.

    Attributes:
        lists_images: bool. Whether the dataset names its images; where not, every image found is one, and its id is
            its path.
        max_failures: str. The share of records that may fail where `--max-failures` says nothing, such as `5%`.
    """

    lists_images: bool
    max_failures: str

    def images(self) -> Iterator[ImageEntry]:
        """The images that the dataset names."""

    def captions(self) -> Iterator[CaptionEntry | Malformed]:
        """The captions of those images, in the files' order, with what cannot be read as one."""
