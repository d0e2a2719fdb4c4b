"""Source datasets by the name that `--dataset-type` gives them."""

from collections.abc import Callable, Sequence

from pipelines.datasets.base import CaptionEntry, DatasetReader, FailedRecord, ImageEntry, ListingReader
from pipelines.datasets.coco import CocoReader
from pipelines.datasets.conceptual import ConceptualReader
from pipelines.datasets.csv_file import CsvReader
from pipelines.datasets.flickr8k import Flickr8kReader
from pipelines.datasets.flickr30k import Flickr30kReader
from pipelines.datasets.folder import FolderReader
from pipelines.datasets.iapr import IaprReader
from pipelines.datasets.jsonl import JsonLinesReader
from pipelines.datasets.karpathy import KarpathyReader
from schemas.errors import UsageError

DATASET_READERS: dict[str, Callable[[Sequence[str]], DatasetReader]] = {
    "coco": CocoReader,
    "karpathy": KarpathyReader,
    "flickr8k": Flickr8kReader,
    "flickr30k": Flickr30kReader,
    "conceptual": ConceptualReader,
    "iapr": IaprReader,
    "csv": CsvReader,
    "jsonl": JsonLinesReader,
    "folder": FolderReader,
}


def open_reader(kind: str, annotations: Sequence[str]) -> DatasetReader:
    """The source of a kind, over its annotation files; UsageError naming the kinds there are."""
    if kind not in DATASET_READERS:
        raise UsageError(
            f"unknown dataset kind {kind!r}",
            location="--dataset-type",
            hint=f"use one of {', '.join(DATASET_READERS)}",
        )
    return DATASET_READERS[kind](annotations)


__all__ = [
    "DATASET_READERS",
    "CaptionEntry",
    "DatasetReader",
    "FailedRecord",
    "ImageEntry",
    "ListingReader",
    "open_reader",
]
