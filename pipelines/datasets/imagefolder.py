"""Reads directories and archives of images with metadata files or class directories: `imagefolder` of `datasets`.

Format: https://huggingface.co/docs/datasets/image_dataset: `metadata.csv`, `metadata.jsonl` or `metadata.parquet` names
the images of its directory in the column `file_name`, and has captions in `text` or another usual column. Without such
a file, the name of an image's directory is its class, which is its caption. A directory states the split by its name.
"""

import posixpath
import re
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from io import BytesIO
from itertools import groupby
from operator import itemgetter
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from features.inputs import ListedFile, list_files
from features.inputs.image_files import is_image
from features.text.lines import FailedRecord
from features.text.record_fields import find_split_in_name, is_split_name, read_record
from features.text.table_columns import USUAL_CAPTION_COLUMNS, CaptionColumns
from pipelines.datasets.annotation_files import (
    MAX_BYTES,
    AnnotationFile,
    list_annotation_files,
    remove_gzip_suffix,
)
from pipelines.datasets.base import CaptionEntry, ImageEntry
from pipelines.datasets.caption_rows import CaptionRow, CaptionTableReader, FindColumns, build_row
from pipelines.datasets.csv_file import read_csv_rows
from pipelines.datasets.jsonl import read_jsonl_rows
from pipelines.datasets.parquet_table import read_rows
from pipelines.datasets.roots import label_roots, remove_duplicate_roots
from schemas.errors import CaptError, RecordError

_FILE_NAME = "file_name"


class ImageFolderReader(CaptionTableReader):
    """Reads images and captions in directories or archives. An image's ID is its path.

    A metadata file names images of its own root only.
    """

    dataset_type = "imagefolder"
    pattern = re.compile(r"(^|/)metadata\.(csv|jsonl|parquet)$", re.IGNORECASE)
    pattern_text = "metadata.csv, metadata.jsonl or metadata.parquet"
    example = "the directory of the images"

    def __init__(self, annotations: Sequence[str], columns: CaptionColumns = USUAL_CAPTION_COLUMNS) -> None:
        super().__init__(annotations, columns._replace(image=columns.image or _FILE_NAME))

    def list_documents(self) -> Iterator[AnnotationFile]:
        return (document for _, document in self._list_labelled_documents())

    def read_images(self) -> Iterator[ImageEntry]:
        if self._with_metadata:
            for label, document in self._list_labelled_documents():
                for one in self.read_file_images(document):
                    yield one._replace(document=document.location, root=label)
            return
        for root, name in self._list_images():
            yield ImageEntry(name, name, _find_class(name)[1], document=root, root=self._labels[root])

    def read_captions(self) -> Iterator[CaptionEntry | FailedRecord]:
        if self._with_metadata:
            for _, documents in groupby(self._list_labelled_documents(), key=itemgetter(0)):
                self._caption_counts.clear()  # Equal paths in other roots are other images.
                for _, document in documents:
                    for one in self.read_file_captions(document):
                        yield one if isinstance(one, FailedRecord) else one._replace(document=document.location)
            self._caption_counts.clear()
            return
        for root, name in self._list_images():
            own_class = _find_class(name)[0]
            if own_class:
                yield CaptionEntry(name, "0", own_class, document=root)
            else:
                yield FailedRecord(
                    f"{root.rstrip('/')}/{name}", "no caption", "no metadata file, and no class directory"
                )

    def read_file_rows(self, document: AnnotationFile) -> Iterator[CaptionRow | FailedRecord]:
        readers = {".csv": read_csv_rows, ".jsonl": read_jsonl_rows, ".parquet": _read_parquet_rows}
        directory, suffix = posixpath.split(document.name)[0], PurePosixPath(document.name.lower()).suffix
        for row in readers[suffix](document, self.find_columns):
            if isinstance(row, FailedRecord):
                yield row
            else:
                path = posixpath.normpath(posixpath.join(directory, row.image))
                yield row._replace(image=path, split=row.split or _find_split(PurePosixPath(path).parts[:-1]))

    @cached_property
    def _labels(self) -> dict[str, str]:
        """The label of each directory and archive."""
        roots = remove_duplicate_roots(self.annotations)
        return dict(zip(roots, label_roots(roots), strict=True))

    @cached_property
    def _with_metadata(self) -> list[str]:
        """The directories and archives that contain a metadata file."""
        return [root for root in self._labels if any(map(self._is_metadata, list_files(root)))]

    def _is_metadata(self, file: ListedFile) -> bool:
        return self.pattern.search(remove_gzip_suffix(file.name)) is not None

    def _list_labelled_documents(self) -> Iterator[tuple[str, AnnotationFile]]:
        """Yields the metadata files, each with the label of its root."""
        for root in self._with_metadata:
            for document in list_annotation_files([root], self.pattern, self.pattern_text):
                yield self._labels[root], document

    def _list_images(self) -> Iterator[tuple[str, str]]:
        """Yields root and name of each image."""
        for root in self._labels:
            yield from ((root, file.name) for file in list_files(root) if is_image(file))


def _find_class(name: str) -> tuple[str, str | None]:
    """Returns the class of an image, empty without one, and its split. A directory of a split is no class.

    That is an only directory whose name states a split, as `train2017`, or a last one whose whole name is that of a
    split, as in `photos/train`, if no directory above it states a split.
    """
    *above, last = PurePosixPath(name).parts[:-1] or ("",)
    split = _find_split(above)
    if split is None and (not above or is_split_name(last)) and find_split_in_name(last):
        return "", find_split_in_name(last)
    return last, split


def _find_split(directories: Sequence[str]) -> str | None:
    """Returns the split that the last directory states that states one."""
    return next(filter(None, map(find_split_in_name, reversed(directories))), None)


def _read_parquet_rows(document: AnnotationFile, find_columns: FindColumns) -> Iterator[CaptionRow | FailedRecord]:
    try:
        file = pq.ParquetFile(BytesIO(document.read_bytes(MAX_BYTES)))
    except (RecordError, pa.ArrowException, OSError, ValueError) as error:
        message = f"the Parquet file cannot be read: {error}"
        raise CaptError(message, location=document.location, hint="Download the file again.") from error
    columns = find_columns(document.location, file.schema_arrow.names)
    for row in read_rows(file, list(dict.fromkeys(columns.names)), document.location):
        if isinstance(row, FailedRecord):
            yield row
        else:
            yield read_record(row.location, partial(build_row, row.location, row.values, columns))
