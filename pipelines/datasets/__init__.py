"""Reads datasets in their published formats, one module per format.

To add a dataset type, write a module with a subclass of `annotation_files.AnnotationReader` (captions) or
`base.ListingReader` (images only). Add it to `DATASET_READERS`, and in `schemas.options.prepare` to
`SampledCaptionType`, `CaptionDatasetType` (images at URLs) or `DatasetType`, and to the help of `--dataset-type`.
"""

from collections.abc import Callable, Sequence

from features.text.table_columns import USUAL_CAPTION_COLUMNS, CaptionColumns
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
from schemas.options.data import SynthSample
from schemas.options.prepare import PrepareCaptions, PrepareFeatures

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


# Those that have columns.
TABLE_READERS: dict[str, Callable[[Sequence[str], CaptionColumns], DatasetReader]] = {
    "csv": CsvReader,
    "jsonl": JsonLinesReader,
}


def open_reader(
    dataset_type: str,
    annotations: Sequence[str],
    *,
    whole_descriptions: bool = False,
    columns: CaptionColumns = USUAL_CAPTION_COLUMNS,
) -> DatasetReader:
    """Returns the reader of a dataset type for annotation files. UsageError if either is unknown or they do not fit.

    `whole_descriptions` selects the captions of `iapr`, and `columns` the columns of a table; other types have neither.
    """
    if dataset_type not in DATASET_READERS:
        known = ", ".join(DATASET_READERS)
        raise UsageError(f"unknown type {dataset_type!r}", location="--dataset-type", hint=f"Use one of {known}.")
    if dataset_type in TABLE_READERS and not whole_descriptions:
        return TABLE_READERS[dataset_type](annotations, columns)
    _refuse_columns(dataset_type, columns)
    if not whole_descriptions:
        return DATASET_READERS[dataset_type](annotations)
    if dataset_type != "iapr":
        message, hint = f"the dataset type {dataset_type} has no descriptions", "Omit the option."
        raise UsageError(message, location="--whole-descriptions", hint=hint)
    return IaprReader(annotations, whole_descriptions=True)


def open_source(options: PrepareFeatures | PrepareCaptions | SynthSample) -> DatasetReader:
    """Returns the reader of the dataset that the options describe; raises as `open_reader`."""
    columns = CaptionColumns(
        options.image_column, options.caption_column, options.id_column, options.split_column, options.group_column
    )
    return open_reader(
        options.dataset_type, options.annotations, whole_descriptions=options.whole_descriptions, columns=columns
    )


def _refuse_columns(dataset_type: str, columns: CaptionColumns) -> None:
    for role, given in columns._asdict().items():
        if given:
            message, hint = f"the dataset type {dataset_type} has no columns", "Omit the option."
            raise UsageError(message, location=f"--{role}-column", hint=hint)
