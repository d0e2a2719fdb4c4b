"""Reads CSV and TSV files with a header.

Each row is an image with one or more captions (`pipelines.datasets.caption_rows`). Fields with commas, quotes or line
ends are quoted (RFC 4180). A file named `.tsv` is separated by tabs. `null` and `NA` are ordinary text.
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial

from features.text.csv_rows import Fields, read_rows
from features.text.lines import FailedRecord, shorten
from features.text.record_fields import read_record
from features.text.table_columns import FoundColumns
from pipelines.datasets.annotation_files import AnnotationFile
from pipelines.datasets.caption_rows import CaptionRow, CaptionTableReader, FindColumns, build_row
from schemas.errors import CaptError


class CsvReader(CaptionTableReader):
    """Reads captions in CSV or TSV files."""

    dataset_type = "csv"
    pattern = re.compile(r"\.[ct]sv$", re.IGNORECASE)
    pattern_text = "*.csv or *.tsv"
    example = "captions.csv"

    def read_file_rows(self, document: AnnotationFile) -> Iterator[CaptionRow | FailedRecord]:
        return read_csv_rows(document, self.find_columns)


def read_csv_rows(document: AnnotationFile, find_columns: FindColumns) -> Iterator[CaptionRow | FailedRecord]:
    """Yields the rows of a CSV or TSV file, and those that cannot be read. CaptError without a header."""
    delimiter = "\t" if document.name.lower().endswith(".tsv") else ","
    rows = read_rows(document.read_text(), document.location, delimiter)
    header = next(rows, None)
    if header is None or isinstance(header, FailedRecord):
        reason = f"{header.reason}: {header.detail}" if header else "the file is empty"
        hint = "Start the file with the names of the columns, such as image and caption."
        raise CaptError(f"no header: {reason}", location=document.location, hint=hint)
    columns = find_columns(document.location, header.fields)
    for row in rows:
        if isinstance(row, FailedRecord):
            yield row
        else:
            yield read_record(row.location, partial(_read_row, row, columns, header.fields))


def _read_row(row: Fields, columns: FoundColumns, header: Sequence[str]) -> CaptionRow | FailedRecord:
    values = name_fields(row, header)
    if isinstance(values, FailedRecord):
        return values
    image = values[columns.image].strip()
    if not image:
        return FailedRecord(row.location, "no image", shorten(" ".join(values[name] for name in columns.captions)))
    return build_row(row.location, {**values, columns.image: image}, columns)


def name_fields(row: Fields, header: Sequence[str]) -> dict[str, str] | FailedRecord:
    """Returns the fields of a row by column; a failed record if it has more or fewer fields than the header.

    Of several columns of one name, it is the last one, but no such column is used (`features.text.table_columns`).
    """
    if len(row.fields) != len(header):
        reason = "too few columns" if len(row.fields) < len(header) else "too many columns"
        detail = f"{len(row.fields)} columns, the header has {len(header)}: {shorten(' '.join(row.fields))}"
        return FailedRecord(row.location, reason, detail)
    return dict(zip(header, row.fields, strict=True))
