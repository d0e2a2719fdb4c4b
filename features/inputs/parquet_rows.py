"""Reads single values of a Parquet file in place, such as images in a column, by row group.

A value is found by its row group, its row in the group, and the path of its column: `000003/000017/image.bytes`. A read
decodes the rows of the group up to the wanted one, some at a time, and keeps them, so that reading in any order decodes
each row once while its group is kept. PyArrow needs memory for about twice a row group.
"""

import re
import tempfile
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from features.io.open_files import check_size, open_file, raise_system_error
from schemas.errors import RecordError, UsageError

_MEMBER = re.compile(r"(\d{1,9})/(\d{1,18})/(.+)", re.DOTALL)
_ROWS = 32  # decoded at a time
# Of one file. A single row group is kept whatever its size.
_MAX_KEPT_GROUPS = 8
_MAX_KEPT_BYTES = 512 << 20
_MAX_GROUP_MEMORY = 8 << 20
_BUFFER_BYTES = 1 << 20
_NULL = -1


class _Values:
    """The decoded values of a column in a row group, as far as they have been read.

    `_MAX_GROUP_MEMORY` bytes of them are in memory; if there are more, all are in a temporary file. The corrupt data
    that ends them is kept as an error, so that it is decoded once. An error of the system is not kept.
    """

    def __init__(self, batches: Iterator[Any], location: str) -> None:
        self.num_bytes = 0
        self._batches = batches
        self._location = location
        self._problem = ""
        self._file = tempfile.SpooledTemporaryFile(_MAX_GROUP_MEMORY)  # noqa: SIM115
        self._starts = array("q")
        self._sizes = array("q")

    def read(self, row: int) -> bytes | None:
        """Returns the value of a row, which may be null.

        Raises:
            IndexError: There is no such row.
            RecordError: It is at or behind corrupt data (`unreadable`).
            CaptError: The file or service cannot be read.
        """
        while row >= len(self._sizes):
            values = self._read_batch()
            if values is None:
                raise IndexError(row)
            self._file.seek(self.num_bytes)
            for value in values:
                self._append(value.as_py())
        size = self._sizes[row]
        if size == _NULL:
            return None
        self._file.seek(self._starts[row])
        return self._file.read(size)

    def close(self) -> None:
        self._file.close()

    def _read_batch(self) -> Any:
        """Returns the next decoded values; None after the last ones."""
        if not self._problem:
            try:
                return next(self._batches, None)
            except (pa.ArrowException, OSError, ValueError) as error:
                raise_system_error(error, self._location)
                self._problem = f"{self._location}: {error}"
            except RecordError as error:
                self._problem = error.detail
        raise RecordError("read", "unreadable", self._problem, permanent=False)

    def _append(self, value: bytes | None) -> None:
        self._starts.append(self.num_bytes)
        self._sizes.append(_NULL if value is None else len(value))
        if value:
            self._file.write(value)
            self.num_bytes += len(value)


def name_member(group: int, row: int, column: str) -> str:
    """Returns the member of a value. Members in alphabetical order are in the order of the file."""
    return f"{group:06d}/{row:09d}/{column}"


def names_value(member: str) -> bool:
    """Returns whether a member has the form of `name_member`."""
    return _MEMBER.fullmatch(member) is not None


def open_parquet(location: str) -> Any:
    """Opens a Parquet file at a path or URI.

    Raises:
        RecordError: The file is not Parquet, or incomplete.
        CaptError: The file or service cannot be read.
    """
    try:
        return pq.ParquetFile(open_file(location), pre_buffer=False, buffer_size=_BUFFER_BYTES)
    # ValueError: column names that are not UTF-8.
    except (pa.ArrowException, OSError, ValueError) as error:
        raise_system_error(error, location)
        raise RecordError("read", "unreadable", f"{location}: {error}", permanent=False) from error


class ParquetRows:
    """A Parquet file at a path or URI, which stays open between reads."""

    def __init__(self, location: str) -> None:
        self._location = location
        self._file = open_parquet(location)
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, str], _Values] = OrderedDict()

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
        check_size(len(value), label, max_bytes)
        return value

    def read_start(self, member: str, label: str, size: int) -> bytes:
        """Reads at most the first `size` bytes of a value; raises as `read`."""
        return self.read(member, label, 1 << 40)[:size]

    def _find(self, group: int, row: int, column: str) -> bytes | None:
        # An error of the system leaves no values behind.
        kept = self._kept.pop((group, column), None) or _Values(self._decode(group, column), self._location)
        try:
            value = kept.read(row)
        except IndexError:
            raise FileNotFoundError(f"{self._location}: row {row} of row group {group}") from None
        except RecordError:
            self._keep(group, column, kept)
            raise
        self._keep(group, column, kept)
        return value

    def _decode(self, group: int, column: str) -> Iterator[Any]:
        batches = self._file.iter_batches(batch_size=_ROWS, row_groups=[group], columns=[column])
        for batch in batches:
            values = batch.column(0)
            for name in column.split(".")[1:] if pa.types.is_struct(values.type) else ():
                values = values.field(name)
            if not (pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type)):
                raise RecordError("read", "unreadable", f"{self._location}/{column}: not bytes", permanent=False)
            yield values

    def _keep(self, group: int, column: str, values: _Values) -> None:
        """Keeps the values, and forgets those that have not been read for the longest time."""
        self._kept[group, column] = values
        while len(self._kept) > 1 and (
            len(self._kept) > _MAX_KEPT_GROUPS or sum(one.num_bytes for one in self._kept.values()) > _MAX_KEPT_BYTES
        ):
            self._kept.popitem(last=False)[1].close()
