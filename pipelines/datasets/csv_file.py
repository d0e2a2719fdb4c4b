"""CSV and TSV files with a header: columns `image` and `caption`, and `split` and `id` if wanted, in any order.

A row is one caption, and an image may have several; the first says the image's split. Fields that hold commas, quotes
or line ends stand in quotes (RFC 4180). A file named `.tsv` is separated by tabs. Words such as `null` and `NA` are
words.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from pipelines.datasets.annotation_files import AnnotationFile, list_annotation_files, require_annotations
from pipelines.datasets.base import CaptionEntry, FailedRecord, ImageEntry
from pipelines.datasets.csv_rows import Fields, read_rows
from pipelines.datasets.lines import shorten
from pipelines.datasets.record_fields import CaptionCounter, read_split_field
from pipelines.datasets.record_reader import read_record
from schemas.errors import CaptError

_FILES = re.compile(r"\.[ct]sv$", re.IGNORECASE)
_WANTED = ("image", "caption")
_COLUMNS = (*_WANTED, "split", "id")


class CsvReader:
    """Captions in CSV or TSV files."""

    max_failures = "5%"

    def __init__(self, annotations: Sequence[str]) -> None:
        self._annotations = require_annotations(annotations, "csv", "captions.csv")

    def images(self) -> Iterator[ImageEntry]:
        """The images that rows name."""
        for row in self._rows():
            if not isinstance(row, FailedRecord):
                yield ImageEntry(row.image, row.image, row.split, document=row.document)

    def captions(self) -> Iterator[CaptionEntry | FailedRecord]:
        """The captions, a row each."""
        numbering = CaptionCounter()
        for row in self._rows():
            if isinstance(row, FailedRecord):
                yield row
            else:
                number = numbering.take(row.image)
                yield CaptionEntry(row.image, row.id or number, row.caption, document=row.document)

    def _rows(self) -> Iterator["_Row | FailedRecord"]:
        for document in list_annotation_files(self._annotations, _FILES, "*.csv or *.tsv"):
            yield from _rows(document)


class _Row(NamedTuple):
    image: str
    caption: str
    split: str | None
    id: str
    document: str


def _rows(document: AnnotationFile) -> Iterator[_Row | FailedRecord]:
    """The rows after the header."""
    delimiter = "\t" if document.name.lower().endswith(".tsv") else ","
    rows = read_rows(document.text(), document.location, delimiter)
    header = next(rows, None)
    if header is None or isinstance(header, FailedRecord):
        why = f"{header.reason}: {header.detail}" if header else "it is empty"
        raise CaptError(f"no header: {why}", location=document.location, hint="begin it with image and caption")
    columns = _columns(header.fields, document.location)
    for row in rows:
        yield (
            row
            if isinstance(row, FailedRecord)
            else read_record(row.place, partial(_row, document.location, row, columns, len(header.fields)))
        )


def _columns(header: Sequence[str], location: str) -> dict[str, int]:
    names = [name.strip().lower() for name in header]
    for name in _COLUMNS:
        if names.count(name) > 1 or (name in _WANTED and name not in names):
            message = f"the header has {names.count(name) or 'no'} columns {name!r}: {shorten(', '.join(header))}"
            raise CaptError(message, location=location, hint="it needs image and caption, and may have split and id")
    return {name: names.index(name) for name in _COLUMNS if name in names}


def _row(document: str, row: Fields, columns: Mapping[str, int], width: int) -> _Row | FailedRecord:
    if len(row.fields) != width:
        message = "too few columns" if len(row.fields) < width else "too many columns"
        return FailedRecord(
            row.place, message, f"{len(row.fields)} where the header has {width}: {shorten(' '.join(row.fields))}"
        )
    named = {name: row.fields[column] for name, column in columns.items()}
    image = named["image"].strip()
    if not image:
        return FailedRecord(row.place, "no image", shorten(named["caption"]))
    return _Row(image, named["caption"], read_split_field(named.get("split")), named.get("id", "").strip(), document)
