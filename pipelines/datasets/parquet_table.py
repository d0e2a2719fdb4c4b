"""Reads the rows of Parquet files by row group, so that a corrupt row group fails its own rows only.

Bytes in a column, and in lists, are text, which some writers do not mark as such; bytes in structures stay bytes.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from features.io.open_files import raise_system_error
from features.text.lines import FailedRecord

_ROWS = 4096
_TEXT_TYPES = {pa.binary(): pa.string(), pa.large_binary(): pa.large_string(), pa.binary_view(): pa.string_view()}


class ParquetRow(NamedTuple):
    """A row: file and number for messages, its number in the file from 0, its place, and its values by column."""

    location: str
    number: int
    group: int
    position: int
    values: dict[str, Any]


def read_rows(
    file: Any,
    columns: Sequence[str],
    location: str,
    *,
    groups: Collection[int] | None = None,
    batch_size: int = _ROWS,
) -> Iterator[ParquetRow | FailedRecord]:
    """Yields the rows of an open `pyarrow.parquet.ParquetFile`. Rows that cannot be read have failed.

    Raises CaptError if the file or service cannot be read.

    Args:
        file: The file.
        columns: Names of the columns, or paths in structures, such as `image.path`. Without one, rows have no values.
        location: Path or URI of the file, for messages.
        groups: Row groups to read, by default all.
        batch_size: Number of rows that are decoded at a time.
    """
    number = 0
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if groups is None or group in groups:
            read = _read_group(file, group, rows, columns, location, number, batch_size)
            for row, values in enumerate(read, number):
                if isinstance(values, FailedRecord):
                    yield values
                else:
                    yield ParquetRow(_locate(location, row), row, group, row - number, values)
        number += rows


def _locate(location: str, number: int) -> str:
    """Returns file and number of a row, from 0, for messages, in which rows begin with 1."""
    return f"{location}: row {number + 1}"


def _read_group(
    file: Any, group: int, rows: int, columns: Sequence[str], location: str, before: int, batch_size: int
) -> Iterator[dict[str, Any] | FailedRecord]:
    """Yields the values of each row of a row group. `before` is the number of rows in the groups before."""
    done = 0
    try:
        batches = file.iter_batches(batch_size=batch_size, row_groups=[group], columns=list(columns)) if columns else ()
        for batch in batches:
            for values in _list_values(_view_as_text(batch), location, before + done):
                yield values
                done += 1
        yield from ({} for _ in range(rows if not columns else 0))
    # ValueError: corrupt pages; OSError: corrupt compression.
    except (pa.ArrowException, OSError, ValueError) as error:
        raise_system_error(error, location)
        for number in range(before + done, before + rows):
            yield FailedRecord(_locate(location, number), "unreadable", f"row group {group}: {error}")


def _view_as_text(batch: Any) -> Any:
    """Returns a batch whose columns of bytes, and of lists of bytes, are text. Whether it is UTF-8 is not checked."""
    fields = [pa.field(field.name, _find_text_type(field.type)) for field in batch.schema]
    pairs = zip(batch.columns, fields, strict=True)
    columns = [one if one.type == field.type else one.view(field.type) for one, field in pairs]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def _find_text_type(kind: Any) -> Any:
    if pa.types.is_list(kind):
        return pa.list_(pa.field(kind.value_field.name, _find_text_type(kind.value_type)))
    return _TEXT_TYPES.get(kind, kind)


def _list_values(batch: Any, location: str, before: int) -> Iterator[dict[str, Any] | FailedRecord]:
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:  # Fails before the first row is yielded.
        for number in range(batch.num_rows):
            try:
                yield from batch.slice(number, 1).to_pylist()
            except UnicodeDecodeError as error:
                yield FailedRecord(_locate(location, before + number), "not UTF-8", str(error))
