"""A folder or archive of images without captions: every image in it is an input, its path is its id."""

from collections.abc import Iterable, Iterator, Sequence

from pipelines.datasets.base import CaptionEntry, ImageEntry, ListedImage
from schemas.errors import UsageError


class FolderReader:
    """Images without annotations."""

    max_failures = "5%"

    def __init__(self, annotations: Sequence[str]) -> None:
        if annotations:
            raise UsageError(
                "a folder has no annotations",
                location="--annotations",
                hint="leave it out, or name the --dataset-type kind",
            )

    def images(self) -> Iterator[ImageEntry]:
        """None: the walk over the images lists them."""
        return iter(())

    def images_among(self, files: Iterable[ListedImage]) -> Iterator[ImageEntry]:
        """Every image file."""
        return (ImageEntry(name, name, root=root) for name, root in files)

    def captions(self) -> Iterator[CaptionEntry]:
        """None."""
        return iter(())
