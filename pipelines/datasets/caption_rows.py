"""Reads tables with an image and its captions per row: CSV, JSON lines and Parquet.

    header → columns of image, captions, ID, split and group → rows → images, captions

A caption column contains text, or a list of texts. A caption's ID is the ID of its row, with a point and a number if
the row has a list or several captions; without an ID, captions are numbered within their image. An image may have
several rows.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from features.text.lines import FailedRecord
from features.text.record_fields import (
    read_caption,
    read_identifier,
    read_name,
    read_record,
    read_split_field,
)
from features.text.table_columns import (
    USUAL_CAPTION_COLUMNS,
    CaptionColumns,
    FoundColumns,
    find_caption_columns,
    report_columns,
)
from pipelines.datasets.annotation_files import AnnotationFile, AnnotationReader
from pipelines.datasets.base import CaptionEntry, ImageEntry

# Returns the columns of a file, given its location and the names of its columns.
FindColumns = Callable[[str, Sequence[str]], FoundColumns]


class CaptionValue(NamedTuple):
    """A caption as written. `location` is its place in the row, `suffix` the end of its ID."""

    location: str
    suffix: str
    value: Any


class CaptionRow(NamedTuple):
    """A row of a table: an image, its captions, and the row's own ID, which may be empty."""

    location: str
    image: str
    split: str | None
    group: str
    own_id: str
    captions: tuple[CaptionValue, ...]


class CaptionTableReader(AnnotationReader):
    """Reads tables whose columns the user names, or that have usual names. A subclass reads the rows of one file."""

    def __init__(self, annotations: Sequence[str], columns: CaptionColumns = USUAL_CAPTION_COLUMNS) -> None:
        super().__init__(annotations)
        self._given = columns
        self._found: dict[str, FoundColumns] = {}

    @abstractmethod
    def read_file_rows(self, document: AnnotationFile) -> Iterator[CaptionRow | FailedRecord]:
        """Yields the rows of one file, and its records that cannot be read."""

    def find_columns(self, location: str, header: Sequence[str]) -> FoundColumns:
        """Returns the columns of a file with this header, and logs them once. UsageError if one is missing."""
        if location not in self._found:
            columns = find_caption_columns(header, location, self._given)
            report_columns(location, columns.list_roles())
            self._found[location] = columns
        return self._found[location]

    def read_file_images(self, document: AnnotationFile) -> Iterator[ImageEntry]:
        for row in self.read_file_rows(document):
            if not isinstance(row, FailedRecord):
                yield ImageEntry(row.image, row.image, row.split, group=row.group)

    def read_file_captions(self, document: AnnotationFile) -> Iterator[CaptionEntry | FailedRecord]:
        for row in self.read_file_rows(document):
            yield from [row] if isinstance(row, FailedRecord) else self.read_row_captions(row)

    def read_row_captions(self, row: CaptionRow) -> Iterator[CaptionEntry | FailedRecord]:
        """Yields the captions of a row. A row without a caption has failed."""
        if not row.captions:
            yield FailedRecord(row.location, "no caption", row.image)
        for one in row.captions:
            caption_id = f"{row.own_id}{one.suffix}" if row.own_id else self.number_caption(row.image)
            yield read_caption_value(row.image, caption_id, one, f"{row.location}: {one.location}")


def build_row(location: str, values: Mapping[str, Any], columns: FoundColumns) -> CaptionRow:
    """Returns the row of values by column. RecordError if one has a wrong type."""
    image = read_name(values, columns.image)
    own_id = _read_optional(values, columns.id)
    split = read_split_field(values.get(columns.split)) if columns.split else None
    return CaptionRow(
        location, image, split, _read_optional(values, columns.group), own_id, list_captions(values, columns.captions)
    )


def list_captions(values: Mapping[str, Any], columns: Sequence[str]) -> tuple[CaptionValue, ...]:
    """Returns the captions in columns with text or lists of texts.

    A missing or null value has none, and neither has an empty one of several columns. A value of another type, and a
    null item of a list, is a caption that cannot be read.
    """
    found: list[tuple[str, Any]] = []
    is_list = False
    for name in columns:
        value = values.get(name)
        if isinstance(value, list):
            is_list = True
            found += ((f"{name}[{number}]", one) for number, one in enumerate(value))
        elif value is not None and (value != "" or len(columns) == 1):
            found.append((name, value))
    is_alone = len(found) == 1 and not is_list
    return tuple(
        CaptionValue(where, "" if is_alone else f".{number}", value) for number, (where, value) in enumerate(found)
    )


def _read_optional(values: Mapping[str, Any], column: str | None) -> str:
    """Returns an ID, empty if it is missing, null or without text."""
    if column is None or values.get(column) is None:
        return ""
    value = values[column]
    return read_identifier(values, column).strip() if not isinstance(value, str) or value.strip() else ""


def read_caption_value(image_id: str, caption_id: str, one: CaptionValue, location: str) -> CaptionEntry | FailedRecord:
    """Returns the caption of an image; a failed record with this location if the value is not text."""
    return read_record(location, lambda: CaptionEntry(image_id, caption_id, read_caption(one.value)))
