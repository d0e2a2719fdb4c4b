"""What a source dataset is: images by name, captions by image, splits where the dataset has its own."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class ImageEntry:
    """An image that a dataset names: its id, its file's name, its own split or none."""

    image_id: str
    file_name: str
    split: str | None = None


@dataclass(frozen=True)
class CaptionEntry:
    """A caption of a dataset: ids, the text as published, its image's own split or none."""

    image_id: str
    caption_id: str
    caption: str
    split: str | None = None


class Source(Protocol):
    """A dataset as published.

    Attributes:
        lists_images: bool. Whether the dataset names its images; where not, every image found is one, and its id is
            its path.
    """

    lists_images: bool

    def images(self) -> Iterator[ImageEntry]:
        """The images that the dataset names."""

    def captions(self) -> Iterator[CaptionEntry]:
        """The captions, in the files' order."""
