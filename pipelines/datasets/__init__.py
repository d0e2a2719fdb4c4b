"""Reads datasets in their published formats, one module per format.

To add a dataset type, write a module with a subclass of `annotation_files.AnnotationReader` (captions),
`base.EmbeddedReader` (files with images and captions; add it to `EMBEDDED`) or `base.ListingReader` (images only). Add
it to `DATASET_READERS`, and in `schemas.options.prepare` to `SampledCaptionType`, `CaptionDatasetType` (images at URLs)
or `DatasetType`, and to the help of `--dataset-type`.
"""

from collections.abc import Callable, Sequence

from features.text.table_columns import USUAL_CAPTION_COLUMNS, CaptionColumns
from pipelines.datasets.base import DatasetReader
from pipelines.datasets.coco import CocoReader
from pipelines.datasets.conceptual import ConceptualReader
from pipelines.datasets.csv_file import CsvReader
from pipelines.datasets.flickr import Flickr8kReader, Flickr30kReader
from pipelines.datasets.folder import FolderReader
from pipelines.datasets.huggingface import HuggingFaceReader
from pipelines.datasets.iapr import IaprReader
from pipelines.datasets.imagefolder import ImageFolderReader
from pipelines.datasets.jsonl import JsonLinesReader
from pipelines.datasets.karpathy import KarpathyReader
from pipelines.datasets.urls import UrlReader
from pipelines.datasets.webdataset import WebDatasetReader
from schemas.errors import UsageError
from schemas.options.data import FetchUrls, SynthSample
from schemas.options.prepare import ColumnOptions, PrepareCaptions, PrepareFeatures

DATASET_READERS: dict[str, Callable[..., DatasetReader]] = {
    "coco": CocoReader,
    "karpathy": KarpathyReader,
    "flickr8k": Flickr8kReader,
    "flickr30k": Flickr30kReader,
    "conceptual": ConceptualReader,
    "urls": UrlReader,
    "iapr": IaprReader,
    "csv": CsvReader,
    "jsonl": JsonLinesReader,
    "webdataset": WebDatasetReader,
    "huggingface": HuggingFaceReader,
    "imagefolder": ImageFolderReader,
    "folder": FolderReader,
}

# Types whose images and captions are in the same files or directories.
EMBEDDED = ("webdataset", "huggingface", "imagefolder")
# The settings that the readers of single types have beside the annotation files.
_SETTINGS: dict[str, tuple[str, ...]] = {
    "iapr": ("whole_descriptions",),
    "csv": ("columns",),
    "jsonl": ("columns",),
    "webdataset": ("columns", "caption_fields"),
    "huggingface": ("columns",),
    "imagefolder": ("columns",),
    "urls": ("columns",),
}
# The roles of the columns, by type, and those of other tables.
_ROLES: dict[str, tuple[str, ...]] = {"webdataset": ("image",), "urls": CaptionColumns._fields}
_TABLE_ROLES = ("image", "caption", "id", "split", "group")


def open_reader(
    dataset_type: str,
    annotations: Sequence[str],
    *,
    whole_descriptions: bool = False,
    columns: CaptionColumns = USUAL_CAPTION_COLUMNS,
    caption_fields: Sequence[str] = (),
) -> DatasetReader:
    """Returns the reader of a dataset type for annotation files.

    Args:
        dataset_type: A key of `DATASET_READERS`.
        annotations: Annotation files; the files with images and captions if the reader is an `EmbeddedReader`.
        whole_descriptions: Selects the captions of `iapr`.
        columns: Names of the columns of a table.
        caption_fields: Fields of the captions of `webdataset`.

    Raises:
        UsageError: The type is unknown, does not fit the files, or does not have a setting.
    """
    if dataset_type not in DATASET_READERS:
        known = ", ".join(DATASET_READERS)
        raise UsageError(f"unknown type {dataset_type!r}", location="--dataset-type", hint=f"Use one of {known}.")
    known_settings = _SETTINGS.get(dataset_type, ())
    roles = _ROLES.get(dataset_type, _TABLE_ROLES) if "columns" in known_settings else ()
    for role, column in columns._asdict().items():
        if column and role not in roles:
            raise _refuse(dataset_type, f"{role}-column", f"no {role} column")
    if whole_descriptions and "whole_descriptions" not in known_settings:
        raise _refuse(dataset_type, "whole-descriptions", "no descriptions")
    if caption_fields and "caption_fields" not in known_settings:
        raise _refuse(dataset_type, "caption-field", "no fields")
    given = {"whole_descriptions": whole_descriptions, "columns": columns, "caption_fields": caption_fields}
    return DATASET_READERS[dataset_type](annotations, **{name: given[name] for name in known_settings})


def open_source(options: PrepareFeatures | PrepareCaptions | SynthSample) -> DatasetReader:
    """Returns the reader of the dataset that the options describe; raises as `open_reader`."""
    return open_reader(
        options.dataset_type,
        _find_annotations(options),
        whole_descriptions=options.whole_descriptions,
        columns=get_columns(options),
        caption_fields=options.caption_field,
    )


def get_columns(options: ColumnOptions) -> CaptionColumns:
    """Returns the columns that the options name."""
    return CaptionColumns(
        options.image_column,
        options.caption_column,
        options.id_column,
        options.split_column,
        options.group_column,
        options.hash_column if isinstance(options, PrepareFeatures | FetchUrls) else None,
    )


def _find_annotations(options: PrepareFeatures | PrepareCaptions | SynthSample) -> tuple[str, ...]:
    """Returns the files with annotations: those of `--images` if the type has both in one place."""
    if isinstance(options, PrepareCaptions) or options.dataset_type not in EMBEDDED:
        return options.annotations
    if options.annotations not in ((), options.images):
        message = f"the images of dataset type {options.dataset_type} contain the annotations"
        raise UsageError(message, location="--annotations", hint="Omit the option.")
    return options.images


def _refuse(dataset_type: str, option: str, problem: str) -> UsageError:
    message = f"the dataset type {dataset_type} has {problem}"
    return UsageError(message, location=f"--{option}", hint="Omit the option.")
