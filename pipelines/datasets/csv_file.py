"""Reads CSV and TSV files with the columns `image` and `caption`, and optionally `split` and `id`, in any order.

Each row is one caption. An image may have several rows; its first row decides its split. Fields with commas, quotes or
line ends are quoted (RFC 4180). A file named `.tsv` is separated by tabs. `null` and `NA` are ordinary text.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from features.text.csv_rows import Fields, read_rows
from features.text.lines import FailedRecord, shorten
from features.text.record_fields import read_record, read_split_field
from pipelines.datasets.annotation_files import AnnotationFile, AnnotationReader
from pipelines.datasets.base import CaptionEntry, ImageEntry
from schemas.errors import CaptError

_REQUIRED = ("image", "caption")
_COLUMNS = (*_REQUIRED, "split", "id")


class CsvReader(AnnotationReader):
    """Reads captions in CSV or TSV files."""

    dataset_type = "csv"
    pattern = re.compile(r"\.[ct]sv$", re.IGNORECASE)
    pattern_text = "*.csv or *.tsv"
    example = "captions.csv"

    def read_file_images(self, document: AnnotationFile) -> Iterator[ImageEntry]:
        for row in _read_rows(document):
            if not isinstance(row, FailedRecord):
                yield ImageEntry(row.image, row.image, row.split)

    def read_file_captions(self, document: AnnotationFile) -> Iterator[CaptionEntry | FailedRecord]:
        for row in _read_rows(document):
            if isinstance(row, FailedRecord):
                yield row
            else:
                number = self.number_caption(row.image)
                yield CaptionEntry(row.image, row.id or number, row.caption)


class _Row(NamedTuple):
    image: str
    caption: str
    split: str | None
    id: str


def _read_rows(document: AnnotationFile) -> Iterator[_Row | FailedRecord]:
    delimiter = "\t" if document.name.lower().endswith(".tsv") else ","
    rows = read_rows(document.read_text(), document.location, delimiter)
    header = next(rows, None)
    if header is None or isinstance(header, FailedRecord):
        reason = f"{header.reason}: {header.detail}" if header else "the file is empty"
        hint = "Start the file with the column names image and caption."
        raise CaptError(f"no header: {reason}", location=document.location, hint=hint)
    columns = _find_columns(header.fields, document.location)
    for row in rows:
        if isinstance(row, FailedRecord):
            yield row
        else:
            yield read_record(row.location, partial(_read_row, row, columns, len(header.fields)))


def _find_columns(header: Sequence[str], location: str) -> dict[str, int]:
    names = [name.strip().lower() for name in header]
    for name in _COLUMNS:
        if names.count(name) > 1 or (name in _REQUIRED and name not in names):
            message = f"the header has {names.count(name) or 'no'} columns {name!r}: {shorten(', '.join(header))}"
            hint = "The columns image and caption are required, split and id are optional."
            raise CaptError(message, location=location, hint=hint)
    return {name: names.index(name) for name in _COLUMNS if name in names}


def _read_row(row: Fields, columns: Mapping[str, int], width: int) -> _Row | FailedRecord:
    if len(row.fields) != width:
        reason = "too few columns" if len(row.fields) < width else "too many columns"
        detail = f"{len(row.fields)} columns, the header has {width}: {shorten(' '.join(row.fields))}"
        return FailedRecord(row.location, reason, detail)
    fields = {name: row.fields[column] for name, column in columns.items()}
    image = fields["image"].strip()
    if not image:
        return FailedRecord(row.location, "no image", shorten(fields["caption"]))
    return _Row(image, fields["caption"], read_split_field(fields.get("split")), fields.get("id", "").strip())
