"""Reads single values of a Parquet file in place, such as images in a column, by row group.

A value is found by its row group, its row in the group, and the path of its column: `000003/000017/image.bytes`. A read
decodes the rows of the group up to the wanted one, some at a time, and keeps the last ones, so that reading in order
decodes each row once. PyArrow needs memory for about twice a row group.
"""

import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from features.io.open_files import check_size, open_file
from schemas.errors import RecordError, UsageError

_MEMBER = re.compile(r"(\d{1,9})/(\d{1,18})/(.+)", re.DOTALL)
_ROWS = 32  # decoded at a time
_MAX_KEPT_BYTES = 128 << 20
_BUFFER_BYTES = 1 << 20


class _Block(NamedTuple):
    """Decoded values of consecutive rows of a row group, from row `start`."""

    group: int
    column: str
    start: int
    values: Any


class _Cursor(NamedTuple):
    """The blocks of a row group that follow row `start`."""

    group: int
    column: str
    start: int
    blocks: Iterator[Any]


def name_member(group: int, row: int, column: str) -> str:
    """Returns the member of a value. Members in alphabetical order are in the order of the file."""
    return f"{group:06d}/{row:09d}/{column}"


def open_parquet(location: str) -> Any:
    """Opens a Parquet file at a path or URI.

    Raises:
        RecordError: The file is not Parquet, or incomplete.
    """
    try:
        return pq.ParquetFile(open_file(location), pre_buffer=False, buffer_size=_BUFFER_BYTES)
    except (pa.ArrowException, OSError) as error:
        raise RecordError("read", "unreadable", f"{location}: {error}", permanent=False) from error


class ParquetRows:
    """A Parquet file at a path or URI, which stays open between reads."""

    def __init__(self, location: str) -> None:
        self._location = location
        self._file = open_parquet(location)
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, str, int], _Block] = OrderedDict()
        self._cursor: _Cursor | None = None

    def list_members(self, state: Any) -> Iterator[Any]:
        """Raises UsageError, because only the reader of a dataset knows the column of the images."""
        hint = "Use --dataset-type huggingface."
        raise UsageError("a Parquet file is not an archive of images", location=self._location, hint=hint)

    def read(self, member: str, label: str, max_bytes: int) -> bytes:
        """Reads a value that messages call `label`; raises as `FileReference.read`."""
        match = _MEMBER.fullmatch(member)
        if match is None or int(match[1]) >= self._file.num_row_groups:
            raise FileNotFoundError(label)
        with self._lock:
            value = self._find(int(match[1]), int(match[2]), match[3])
        if value is None:
            raise RecordError("read", "no image", f"{label}: the value is null", permanent=False)
        if not isinstance(value, bytes):
            raise RecordError("read", "unreadable", f"{label}: not bytes", permanent=False)
        check_size(len(value), label, max_bytes)
        return value

    def read_start(self, member: str, label: str, size: int) -> bytes:
        """Reads at most the first `size` bytes of a value; raises as `read`."""
        return self.read(member, label, 1 << 40)[:size]

    def _find(self, group: int, row: int, column: str) -> Any:
        for block in self._kept.values():
            if (block.group, block.column) == (group, column) and 0 <= row - block.start < len(block.values):
                self._kept.move_to_end((group, column, block.start))
                return block.values[row - block.start].as_py()
        cursor = self._cursor
        self._cursor = None  # An error leaves no cursor behind.
        if cursor is None or (cursor.group, cursor.column) != (group, column) or cursor.start > row:
            cursor = _Cursor(group, column, 0, self._decode(group, column))
        for values in cursor.blocks:
            block = _Block(group, column, cursor.start, values)
            self._keep(block)
            cursor = cursor._replace(start=cursor.start + len(values))
            if row < cursor.start:
                self._cursor = cursor
                return block.values[row - block.start].as_py()
        raise FileNotFoundError(f"{self._location}: row {row} of row group {group}")

    def _decode(self, group: int, column: str) -> Iterator[Any]:
        batches = self._file.iter_batches(batch_size=_ROWS, row_groups=[group], columns=[column])
        for batch in batches:
            values = batch.column(0)
            for name in column.split(".")[1:] if pa.types.is_struct(values.type) else ():
                values = values.field(name)
            yield values

    def _keep(self, block: _Block) -> None:
        self._kept[block.group, block.column, block.start] = block
        while len(self._kept) > 1 and sum(one.values.nbytes for one in self._kept.values()) > _MAX_KEPT_BYTES:
            self._kept.popitem(last=False)
