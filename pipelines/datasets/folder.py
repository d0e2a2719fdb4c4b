"""Reads a directory or archive of images without captions. An image's path is its ID."""

from collections.abc import Iterable, Iterator, Sequence

from pipelines.datasets.base import ImageEntry, ListedImage, ListingReader
from schemas.errors import UsageError


class FolderReader(ListingReader):
    """Reads images without annotations."""

    def __init__(self, annotations: Sequence[str]) -> None:
        if annotations:
            hint = "Omit --annotations, or choose another --dataset-type."
            raise UsageError("dataset type folder has no annotations", location="--annotations", hint=hint)

    def read_listed_images(self, files: Iterable[ListedImage]) -> Iterator[ImageEntry]:
        return (ImageEntry(one.name, one.name, root=one.root) for one in files)
