"""Reads label files in three layouts: lines `ID LABEL`, tables, and lists of labels.

    bytes → layout: ids    lines `a0 thus` (`features.text.captcha_names`)
                    table  CSV, TSV, JSON lines or Parquet: image, label and split per row; or lines `a.png 7Hq`
                    list   one label per line, in the order of the images

Text stays text: `null`, `NaN`, `007` and `1e5` are labels, and a number in JSON or Parquet is not one.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from itertools import chain
from pathlib import PurePosixPath
from reprlib import repr as abbreviate
from typing import Any, Literal, NamedTuple

from features.inputs.image_files import is_image_name
from features.text.captcha_names import parse_label_line, parse_line_number
from features.text.csv_rows import Fields, read_rows
from features.text.lines import FailedRecord, Line, decode_lines, number_lines, shorten
from features.text.record_fields import (
    escape_surrogates,
    parse_json_line,
    read_record,
    read_split_field,
    read_value,
)
from features.text.table_columns import IMAGE, LABEL, SPLIT, find_columns, report_columns
from schemas.errors import CaptError, RecordError, UsageError

Layout = Literal["ids", "table", "list"]

PUBLISHED = "spec_train_val.txt"
_DELIMITED = (".csv", ".tsv")
_JSON_LINES = (".jsonl", ".ndjson")
_PARQUET = ".parquet"
TABLES = (*_DELIMITED, *_JSON_LINES, _PARQUET)

# Formats of labels that capt does not read. Their lines would pass for labels.
_UNSUPPORTED = (".json", ".xml", ".yaml", ".yml", ".xls", ".xlsx", ".html", ".zip", ".tar")

# Between image name and label in a line `a.png 7Hq`.
_SEPARATOR = re.compile(r"\t|[,;] ?| ")
_MAX_NAME = 4096


class LabelColumns(NamedTuple):
    """Names of the columns of a table; None to find the column by the usual names."""

    image: str | None = None
    label: str | None = None
    split: str | None = None


USUAL_COLUMNS = LabelColumns()


class LabelRow(NamedTuple):
    """A row of a table: where it is, the image that it names, its label, and the value of its column split.

    Label and split are as written: `read_split` checks the split.
    """

    location: str
    image: str
    label: str
    split: Any

    def read_split(self) -> str | None:
        """Returns the split, None without one. Raises RecordError if the value is not a split."""
        return read_split_field(self.split)


@dataclass(frozen=True)
class LabelTable:
    """A table of labels: its columns, and its rows."""

    columns: Mapping[str, str]
    rows: Iterator[LabelRow | FailedRecord]


def find_layout(name: str, data: bytes) -> Layout:
    """Returns the layout of a label file, by its name and its text in UTF-8.

    A text file has the layout `ids` if it has the published name, or if at least half of its lines begin with an ID;
    otherwise it is a table if at least half of its lines begin with the name of an image.

    Raises:
        UsageError: The file has a format that capt does not read.
    """
    if name.lower().endswith(TABLES):
        return "table"
    if name.lower().endswith(_UNSUPPORTED) or _is_json(data):
        hint = f"Convert or rename it to {', '.join(TABLES)}."
        raise UsageError("label files of this format cannot be read", location=name, hint=hint)
    lines = [line for line in decode_lines(data, name) if isinstance(line, Line)]
    with_id = sum(parse_line_number(line.text) is not None and len(line.text.split()) > 1 for line in lines)
    if PurePosixPath(name).name == PUBLISHED or 2 * with_id >= len(lines):
        return "ids"
    return "table" if 2 * sum(_split_named(line.text) is not None for line in lines) >= len(lines) else "list"


def _is_json(data: bytes) -> bool:
    """Returns whether a text, or its first line, is a JSON object or array."""
    text = data.lstrip()
    if not text.startswith((b"{", b"[")):
        return False
    for part in (text, text.partition(b"\n")[0]):
        with suppress(ValueError, RecursionError):
            json.loads(part)
            return True
    return False


def read_id_lines(data: bytes, location: str) -> Iterator[LabelRow | FailedRecord]:
    """Yields the rows of lines `a0 thus`. The image of a row is its ID."""
    for line in decode_lines(data, location):
        if isinstance(line, FailedRecord):
            yield line
        elif found := parse_label_line(line.text):
            yield LabelRow(line.location, f"a{found.number}", found.label, None)
        else:
            yield line.fail("not `ID LABEL`", "expected an ID, one space or tab, and a label")


def read_label_list(data: bytes, location: str) -> dict[int, Line | FailedRecord]:
    """Returns the lines of a list of labels by line number from 1; a blank line has none. UsageError for no line."""
    lines: dict[int, Line | FailedRecord] = {}
    for number, line in number_lines(data, location):
        lines.setdefault(number, line)
    if not lines:
        raise _no_label(location)
    return lines


def read_label_table(name: str, data: bytes, location: str, wanted: LabelColumns = USUAL_COLUMNS) -> LabelTable:
    """Reads a table of labels, and logs which columns it uses.

    Args:
        name: File name, whose suffix is the format.
        data: The file; a text in UTF-8.
        location: The file for messages.
        wanted: Names of columns that the user has given.

    Raises:
        UsageError: A column is missing, or the table has no row.
        CaptError: The file cannot be read.
    """
    readers = {**dict.fromkeys(_DELIMITED, _read_delimited), **dict.fromkeys(_JSON_LINES, _read_json)}
    readers[_PARQUET] = _read_parquet
    table = readers.get(PurePosixPath(name.lower()).suffix, _read_named)(data, location, wanted)
    first = next(table.rows, None)
    if first is None:
        raise _no_label(location)
    if table.columns:
        report_columns(location, table.columns.items())
    return LabelTable(table.columns, chain([first], table.rows))


def _find_columns(header: Sequence[str], location: str, wanted: LabelColumns) -> dict[str, str]:
    """Returns the name of the column of each role."""
    return find_columns(header, location, (IMAGE, LABEL, SPLIT), wanted._asdict())


def _no_label(location: str) -> UsageError:
    return UsageError("the file contains no label", location=location, hint="Check --labels.")


# === CSV and TSV ===


def _read_delimited(data: bytes, location: str, wanted: LabelColumns) -> LabelTable:
    delimiter = _find_delimiter(data)
    rows = read_rows(data, location, delimiter)
    header = next(rows, None)
    if header is None:
        raise _no_label(location)
    if isinstance(header, FailedRecord):
        hint = "Start the file with the names of the columns, such as image and label."
        raise CaptError(f"no header: {header.reason}: {header.detail}", location=location, hint=hint)
    names = header.fields
    columns = _find_columns(names, location, wanted)
    positions = {role: names.index(column) for role, column in columns.items()}
    return LabelTable(columns, (_read_fields(row, positions, len(names)) for row in rows))


def _find_delimiter(data: bytes) -> str:
    """Returns the character that divides the first line most often: a tab, a comma or a semicolon."""
    first = data.lstrip(b"\r\n").partition(b"\n")[0]
    return max(",", "\t", ";", key=lambda delimiter: first.count(delimiter.encode()))


def _read_fields(row: Fields | FailedRecord, positions: Mapping[str, int], width: int) -> LabelRow | FailedRecord:
    if isinstance(row, FailedRecord):
        return row
    if len(row.fields) != width:
        reason = "too few columns" if len(row.fields) < width else "too many columns"
        detail = f"{len(row.fields)} columns, the header has {width}: {shorten(' '.join(row.fields))}"
        return FailedRecord(row.location, reason, detail)
    values = {role: row.fields[position] for role, position in positions.items()}
    return read_record(row.location, partial(_build_row, row.location, values))


# === JSON lines ===


def _read_json(data: bytes, location: str, wanted: LabelColumns) -> LabelTable:
    records = [_parse_json(line) for line in decode_lines(data, location)]
    # A key may be missing in some objects.
    header = list(dict.fromkeys(key for _, found in records if isinstance(found, dict) for key in found))
    if not header:
        if not records:
            raise _no_label(location)
        hint = 'Write one object per line, such as {"image": "a.png", "label": "7Hq"}.'
        raise UsageError("no line is a JSON object", location=location, hint=hint)
    columns = _find_columns(header, location, wanted)
    return LabelTable(columns, (_read_object(where, found, columns) for where, found in records))


def _parse_json(line: Line | FailedRecord) -> tuple[str, Any]:
    """Returns location and value of a line, or its failure."""
    return line.location, line if isinstance(line, FailedRecord) else parse_json_line(line)


def _read_object(location: str, found: Any, columns: Mapping[str, str]) -> LabelRow | FailedRecord:
    if isinstance(found, FailedRecord):
        return found

    def read() -> LabelRow:
        read_value(found, columns["image"])
        return _build_row(location, {role: found.get(key) for role, key in columns.items()})

    return read_record(location, read)


# === Parquet ===


def _read_parquet(data: bytes, location: str, wanted: LabelColumns) -> LabelTable:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(BytesIO(data))
        columns = _find_columns(file.schema_arrow.names, location, wanted)
        table = file.read(columns=list(columns.values()))
        values = {role: table[column].to_pylist() for role, column in columns.items()}
    # ValueError: text that is not UTF-8, or a date that Python cannot represent.
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CaptError(
            f"the Parquet file cannot be read: {error}", location=location, hint="Check --labels."
        ) from error
    rows = (
        (f"{location}: row {number}", dict(zip(values, some, strict=True)))
        for number, some in enumerate(zip(*values.values(), strict=True), 1)
    )
    return LabelTable(columns, (read_record(where, partial(_build_row, where, row)) for where, row in rows))


# === Lines with image names ===


def _read_named(data: bytes, location: str, wanted: LabelColumns) -> LabelTable:
    for role, given in wanted._asdict().items():
        if given is not None:
            raise UsageError(f"{location} has no columns", location=f"--{role}-column", hint="Omit the option.")
    return LabelTable({}, map(_split_line, decode_lines(data, location)))


def _split_line(line: Line | FailedRecord) -> LabelRow | FailedRecord:
    if isinstance(line, FailedRecord):
        return line
    split = _split_named(line.text)
    if split is None:
        return line.fail("no image name", "expected an image name, a tab, comma or space, and a label")
    return LabelRow(line.location, *split, None)


def _split_named(text: str) -> tuple[str, str] | None:
    """Returns the image name at the beginning of a line, and the rest after a separator; None without such a name."""
    return next(
        (
            (text[: found.start()], text[found.end() :])
            for found in _SEPARATOR.finditer(text, 0, _MAX_NAME)
            if is_image_name(text[: found.start()])
        ),
        None,
    )


# === Rows ===


def _build_row(location: str, values: Mapping[str, Any]) -> LabelRow:
    image, label = values["image"], values["label"]
    if not isinstance(image, str) or not image.strip():
        raise RecordError("parse", "no image", abbreviate(image))
    if not isinstance(label, str):
        raise RecordError("parse", "label is not text", f"{abbreviate(label)} for {abbreviate(image)}")
    return LabelRow(location, escape_surrogates(image.strip()), label, values.get("split"))
