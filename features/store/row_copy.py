"""Copying: rows from the shards of a merge to new shards, without being parsed.

TFRecord shards give whole records, framing and all; Parquet shards give the bytes of their tensors, compressed as
they are.
"""

import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from features.store.merge import ShardMerge
from features.store.shards import MakeWriter, Places, record_end, tensor_fields, value_span
from schemas.choices import Format
from schemas.errors import CorruptFileError
from schemas.records import Row
from schemas.tables import Table

_OPEN_SHARDS = 64


class Copier(Protocol):
    """Reads rows of a merge in the form that `make_writer` (None: the format's own writer) takes."""

    make_writer: MakeWriter | None

    def row(self, key: bytes, shard: int, place: int) -> Row:
        """The row of a key, which is so far into one of the merge's shards."""

    def close(self) -> None:
        """Let go of the files."""


def open_copier(merge: ShardMerge, table: Table, file_format: Format) -> Copier:
    """The copier for rows of a format.

    Args:
        merge: ShardMerge. Where the rows are.
        table: Table. Their declaration.
        file_format: str. `tfrecord` or `parquet`.
    """
    return _RecordCopier(merge, table) if file_format == "tfrecord" else _ValueCopier(merge, table)


@dataclass(frozen=True)
class _OpenShard:
    """A shard's file and index."""

    descriptor: int
    index: NDArray[Any]


class _Shards:
    """The shards of a merge, the last few used kept open, each checked when it is first opened."""

    def __init__(self, merge: ShardMerge, table: Table) -> None:
        self._merge = merge
        self._table = table
        self._tensors = tensor_fields(table)
        self._open: OrderedDict[int, _OpenShard] = OrderedDict()

    def close(self) -> None:
        """Let go of the files."""
        for shard in self._open.values():
            os.close(shard.descriptor)
        self._open.clear()

    def _opened(self, number: int) -> _OpenShard:
        if number not in self._open:
            if len(self._open) >= _OPEN_SHARDS:
                os.close(self._open.popitem(last=False)[1].descriptor)
            index, path = self._merge.index(number), self._merge.data(number)
            self._open[number] = _OpenShard(os.open(path, os.O_RDONLY), index)
        self._open.move_to_end(number)
        return self._open[number]

    def _read(self, number: int, size: int, offset: int) -> bytes:
        data = os.pread(self._opened(number).descriptor, size, offset)
        if len(data) != size:
            raise CorruptFileError("the shard ends before its last row", location=str(self._merge.data(number)))
        return data


class _RecordCopier(_Shards):
    """Whole records of TFRecord files."""

    def __init__(self, merge: ShardMerge, table: Table) -> None:
        super().__init__(merge, table)
        self.make_writer: MakeWriter | None = _RecordWriter

    def row(self, key: bytes, shard: int, place: int) -> Row:
        """The key, the record, where it began, and its index entry."""
        index = self._opened(shard).index
        start = record_end(index[place - 1], self._table) if place else 0
        record = self._read(shard, record_end(index[place], self._table) - start, start)
        return {"key": key, "record": record, "start": start, "entry": index[place]}


class _ValueCopier(_Shards):
    """Tensors of Parquet files, which lie bare in them."""

    def __init__(self, merge: ShardMerge, table: Table) -> None:
        super().__init__(merge, table)
        self.make_writer: MakeWriter | None = None

    def row(self, key: bytes, shard: int, place: int) -> Row:
        """The key and the tensors' bytes by column name."""
        entry = self._opened(shard).index[place]
        spans = {field.name: value_span(entry, field) for field in self._tensors}
        return {"key": key, **{name: self._read(shard, int(size), int(start)) for name, (start, size) in spans.items()}}


class _RecordWriter:
    """Writes records as they are."""

    def __init__(self, path: Path, table: Table) -> None:
        self._file = path.open("wb")
        self._starts = [field.name for field in tensor_fields(table)]
        self._places: list[Places] = []

    def append(self, row: Row) -> None:
        """Add a record."""
        moved = self._file.tell() - row["start"]
        self._file.write(row["record"])
        entry = row["entry"]
        names = entry.dtype.names[1:]
        self._places.append([int(entry[name]) + (moved if name in self._starts else 0) for name in names])

    def close(self) -> list[Places]:
        """Finish the file; the places of each record's tensor values."""
        self._file.close()
        return self._places
