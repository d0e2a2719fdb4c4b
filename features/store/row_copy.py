"""Copies rows from existing shards to new ones without parsing them.

TFRecord rows are copied as whole records with their framing. Parquet rows are copied as the bytes of their tensors,
without decompressing them.
"""

from features.store.random_access import OpenShards
from features.store.shards import TFRecordWriter, record_end, tensor_fields, value_span
from schemas.choices import Format
from schemas.records import Row


class RowCopier:
    """Reads rows in the form that `make_writer` (None: the format's own writer) accepts."""

    def __init__(self, shards: OpenShards, file_format: Format) -> None:
        self._shards = shards
        self.make_writer = _RecordWriter if file_format == "tfrecord" else None

    def read(self, key: bytes, shard: int, row: int) -> Row:
        """Reads the record of a row with its start and index entry, or the bytes of its tensors by column."""
        index, table = self._shards.index(shard), self._shards.table
        if self.make_writer:
            start = record_end(index[row - 1], table) if row else 0
            record = self._shards.read_bytes(shard, start, record_end(index[row], table) - start)
            return {"key": key, "record": record, "start": start, "entry": index[row]}
        spans = {field.name: map(int, value_span(index[row], field)) for field in tensor_fields(table)}
        return {"key": key, **{name: self._shards.read_bytes(shard, *span) for name, span in spans.items()}}


class _RecordWriter(TFRecordWriter):
    """Writes copied records, and moves the offsets of their index entries."""

    def append(self, row: Row) -> None:
        moved, entry = self._file.tell() - row["start"], row["entry"]
        self._file.write(row["record"])
        names = [field.name for field in tensor_fields(self._table)]
        self._offsets.append([int(entry[one]) + (moved if one in names else 0) for one in entry.dtype.names[1:]])
