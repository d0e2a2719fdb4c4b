"""Reads CSV and TSV files with a header.

Each row is an image with one or more captions (`pipelines.datasets.caption_rows`). Fields with commas, quotes or line
ends are quoted (RFC 4180). A file named `.tsv` is separated by tabs. `null` and `NA` are ordinary text.
"""

import re
from collections.abc import Iterator, Mapping
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
    positions = {name: header.fields.index(name) for name in columns.names}
    for row in rows:
        if isinstance(row, FailedRecord):
            yield row
        else:
            yield read_record(row.location, partial(_read_row, row, columns, positions, len(header.fields)))


def _read_row(
    row: Fields, columns: FoundColumns, positions: Mapping[str, int], width: int
) -> CaptionRow | FailedRecord:
    if len(row.fields) != width:
        reason = "too few columns" if len(row.fields) < width else "too many columns"
        detail = f"{len(row.fields)} columns, the header has {width}: {shorten(' '.join(row.fields))}"
        return FailedRecord(row.location, reason, detail)
    values = {name: row.fields[position] for name, position in positions.items()}
    image = values[columns.image].strip()
    if not image:
        return FailedRecord(row.location, "no image", shorten(" ".join(values[name] for name in columns.captions)))
    return build_row(row.location, {**values, columns.image: image}, columns)
