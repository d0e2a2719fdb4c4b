"""Reads datasets in their published formats, one module per format.

To add a dataset type, write a module with a subclass of `annotation_files.AnnotationReader` (captions) or
`base.ListingReader` (images only). Add it to `DATASET_READERS`, and in `schemas.options.prepare` to
`SampledCaptionType`, `CaptionDatasetType` (images at URLs) or `DatasetType`, and to the help of `--dataset-type`.
"""

from collections.abc import Callable, Sequence

from pipelines.datasets.base import DatasetReader
from pipelines.datasets.coco import CocoReader
from pipelines.datasets.conceptual import ConceptualReader
from pipelines.datasets.csv_file import CsvReader
from pipelines.datasets.flickr import Flickr8kReader, Flickr30kReader
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


def open_reader(dataset_type: str, annotations: Sequence[str], *, whole_descriptions: bool = False) -> DatasetReader:
    """Returns the reader of a dataset type for annotation files. UsageError if either is unknown or they do not fit.

    `whole_descriptions` selects the captions of `iapr`; other types do not have it.
    """
    if dataset_type not in DATASET_READERS:
        known = ", ".join(DATASET_READERS)
        raise UsageError(f"unknown type {dataset_type!r}", location="--dataset-type", hint=f"Use one of {known}.")
    if not whole_descriptions:
        return DATASET_READERS[dataset_type](annotations)
    if dataset_type != "iapr":
        message, hint = f"the dataset type {dataset_type} has no descriptions", "Omit the option."
        raise UsageError(message, location="--whole-descriptions", hint=hint)
    return IaprReader(annotations, whole_descriptions=True)
