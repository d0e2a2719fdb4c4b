"""Copies rows from existing shards to new ones without parsing them.

TFRecord rows are copied as whole records with their framing. Parquet rows are copied as the bytes of their tensors,
without decompressing them.
"""

import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from features.store.merge import ShardMerge
from features.store.shards import MakeWriter, Offsets, record_end, tensor_fields, value_span
from schemas.choices import Format
from schemas.errors import CorruptFileError
from schemas.records import Row
from schemas.tables import Table

_MAX_OPEN = 64


class Copier(Protocol):
    """Reads rows in the form that `make_writer` (None: the format's own writer) accepts."""

    make_writer: MakeWriter | None

    def row(self, key: bytes, shard: int, row: int) -> Row:
        """Reads one row of a shard."""

    def close(self) -> None:
        """Closes the files."""


def open_copier(merge: ShardMerge, table: Table, file_format: Format) -> Copier:
    """Opens the copier for a file format.

    Args:
        merge: The shards to read.
        table: The declaration of their rows.
        file_format: Their file format.
    """
    return _RecordCopier(merge, table) if file_format == "tfrecord" else _ValueCopier(merge, table)


@dataclass(frozen=True)
class _OpenShard:
    descriptor: int
    index: NDArray[Any]


class _Shards:
    """The shards to copy from. The most recently used ones stay open."""

    def __init__(self, merge: ShardMerge, table: Table) -> None:
        self._merge = merge
        self._table = table
        self._tensors = tensor_fields(table)
        self._open: OrderedDict[int, _OpenShard] = OrderedDict()

    def close(self) -> None:
        """Closes the files."""
        for shard in self._open.values():
            os.close(shard.descriptor)
        self._open.clear()

    def _get(self, number: int) -> _OpenShard:
        if number not in self._open:
            if len(self._open) >= _MAX_OPEN:
                os.close(self._open.popitem(last=False)[1].descriptor)
            index, path = self._merge.index(number), self._merge.data(number)
            self._open[number] = _OpenShard(os.open(path, os.O_RDONLY), index)
        self._open.move_to_end(number)
        return self._open[number]

    def _read(self, number: int, size: int, offset: int) -> bytes:
        data = os.pread(self._get(number).descriptor, size, offset)
        if len(data) != size:
            raise CorruptFileError("the shard ends before its last row", location=str(self._merge.data(number)))
        return data


class _RecordCopier(_Shards):
    """Copies whole records of TFRecord files."""

    def __init__(self, merge: ShardMerge, table: Table) -> None:
        super().__init__(merge, table)
        self.make_writer: MakeWriter | None = _RecordWriter

    def row(self, key: bytes, shard: int, row: int) -> Row:
        """Returns the key, the record, its start offset and its index entry."""
        index = self._get(shard).index
        start = record_end(index[row - 1], self._table) if row else 0
        record = self._read(shard, record_end(index[row], self._table) - start, start)
        return {"key": key, "record": record, "start": start, "entry": index[row]}


class _ValueCopier(_Shards):
    """Copies the bytes of tensors of Parquet files."""

    def __init__(self, merge: ShardMerge, table: Table) -> None:
        super().__init__(merge, table)
        self.make_writer: MakeWriter | None = None

    def row(self, key: bytes, shard: int, row: int) -> Row:
        """Returns the key and the tensors' bytes by column name."""
        entry = self._get(shard).index[row]
        spans = {field.name: value_span(entry, field) for field in self._tensors}
        return {"key": key, **{name: self._read(shard, int(size), int(start)) for name, (start, size) in spans.items()}}


class _RecordWriter:
    """Writes copied records, and moves the offsets of their index entries."""

    def __init__(self, path: Path, table: Table) -> None:
        self._file = path.open("wb")
        self._tensor_names = [field.name for field in tensor_fields(table)]
        self._offsets: list[Offsets] = []

    def append(self, row: Row) -> None:
        """Writes a record."""
        moved, entry = self._file.tell() - row["start"], row["entry"]
        self._file.write(row["record"])
        names = entry.dtype.names[1:]
        self._offsets.append([int(entry[name]) + (moved if name in self._tensor_names else 0) for name in names])

    def close(self) -> list[Offsets]:
        """Finishes the file and returns the offsets of each record's tensor values."""
        self._file.close()
        return self._offsets
