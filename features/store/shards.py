"""Writes and reads shards: files of rows sorted by key, as TFRecord or Parquet, with an index for random access.

Shard `number` of `count` (a power of two) contains the keys whose first log2(count) bits are `number`. The file name
contains both, and the first digits of the file's SHA-256, so that files with different contents have different names.

The index has one entry per row, in row order. An entry contains the 32-byte key and, for each tensor column in field
order, the offset of its value in the shard file as a little-endian uint64. If the column is compressed, the value's
length follows as a little-endian uint32. TFRecord framing follows tensorflow/core/lib/io/record_writer.h. Parquet files
store plain values with one page per row group; compression applies to each value separately.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.io.atomic_files import (
    describe_file,
    hash_file,
    make_directory,
    measure_free_space,
    replace_atomically,
    temporary_path,
)
from schemas.choices import Format
from schemas.errors import CaptError, UsageError
from schemas.manifests import Shard
from schemas.records import Row, from_arrow, from_example, to_arrow, to_example, to_plain
from schemas.table_config import SHORT_FINGERPRINT, compute_digest
from schemas.tables import KEY_BYTES, Field, Table

MAX_SHARDS = 1 << 16
_DISK_MARGIN = 1.05  # for indexes and metadata
SHARD_BYTES = 128 << 20
_ROW_GROUP_BYTES = 16 << 20
_ROW_GROUP_ROWS = 4096
_FRAME_HEAD = 12
_FRAME_TAIL = 4
_LENGTH_BYTES = 4

# For each tensor column of a row, in field order: the offset of its value, and its length if it is compressed.
Offsets = list[int]


def choose_shard_count(rows: int, row_bytes: int) -> int:
    """Returns the smallest power of two that keeps a shard at or below about 128 MiB."""
    count = 1
    while count < MAX_SHARDS and rows * row_bytes / count > SHARD_BYTES:
        count *= 2
    return count


def check_num_shards(num_shards: int | None) -> None:
    """Raises UsageError if the value of `--num-shards` is not a power of two within bounds."""
    if num_shards is not None and (num_shards < 1 or num_shards > MAX_SHARDS or num_shards & (num_shards - 1)):
        message = f"{num_shards} is not a power of two up to {MAX_SHARDS:,}"
        raise UsageError(message, location="--num-shards", hint="Use 64, for example.")


def check_disk_space(root: Path, row_bytes: int, work: str, hint: str) -> None:
    """Raises CaptError if the disk of a table has no room for `row_bytes` of new rows and their indexes.

    `work`, which needs the space, and `hint` are parts of the error.
    """
    need, free = int(row_bytes * _DISK_MARGIN), measure_free_space(root)
    if free is not None and need > free:
        raise CaptError(f"{work} needs {need:,} bytes, but {free:,} are free", location=str(root), hint=hint)


def find_shard(key: bytes, count: int) -> int:
    """Returns the number of the shard, out of `count`, that a key belongs to."""
    return int.from_bytes(key[:4], "big") * count >> 32


def find_shards(keys: NDArray[np.uint8], count: int) -> NDArray[np.int64]:
    """Returns the number of the shard, out of `count`, of each of the keys uint8 [N, 32]."""
    heads = np.ascontiguousarray(keys[:, :4]).view(">u4")[:, 0]
    return heads.astype(np.int64) * count >> 32


def compute_commit_name(fingerprint: str, extractor: str, count: int, keys: str) -> str:
    """Computes the directory name of a commit of features; `keys` is the SHA-256 of all keys in ascending order."""
    return compute_digest([fingerprint, extractor, count, keys])[:SHORT_FINGERPRINT]


class TFRecordWriter:
    """Writes rows as `tf.train.Example`s in TFRecord framing; `close` returns the offsets of their tensor values."""

    def __init__(self, path: Path, table: Table) -> None:
        self._table = table
        self._file = path.open("wb")
        self._offsets: list[Offsets] = []

    def append(self, row: Row) -> None:
        """Writes a row."""
        plain = {field.name: to_plain(field, row[field.name]) for field in self._table.fields}
        data = to_example(self._table, plain)
        head = struct.pack("<Q", len(data))
        self._file.write(head + struct.pack("<I", _masked_crc(head)))
        self._file.write(data)
        end = self._file.tell()
        self._file.write(struct.pack("<I", _masked_crc(data)))
        if tensor_fields(self._table):
            sizes = {field.name: len(plain[field.name]) for field in self._table.fields}
            self._offsets.append(_compute_example_offsets(self._table, sizes, end))

    def append_batch(self, batch: pa.RecordBatch) -> None:
        """Writes the rows of a batch of a table without tensors."""
        for row in batch.to_pylist():
            self.append(row)

    def close(self) -> list[Offsets]:
        self._file.close()
        return self._offsets


class ParquetWriter:
    """Writes rows as Parquet without dictionaries and compressed pages, and with one page per row group.

    `close` returns the offsets of the rows' tensor values.
    """

    def __init__(self, path: Path, table: Table) -> None:
        self._table = table
        self._path = path
        self._rows: list[Row] = []
        self._waiting = table.arrow_schema().empty_table()
        self._sizes: list[dict[str, int]] = []
        row_bytes = sum(field.nbytes for field in table.fields)
        self._group_rows = max(1, min(_ROW_GROUP_ROWS, _ROW_GROUP_BYTES // max(1, row_bytes)))
        self._writer = pq.ParquetWriter(
            path,
            table.arrow_schema(),
            compression="none",
            use_dictionary=False,
            write_statistics=False,
            data_page_size=4 * _ROW_GROUP_BYTES + row_bytes,
            write_batch_size=self._group_rows,
        )

    def append(self, row: Row) -> None:
        """Writes a row."""
        plain = {field.name: to_plain(field, row[field.name]) for field in self._table.fields}
        self._rows.append(plain)
        self._sizes.append({field.name: len(plain[field.name]) for field in tensor_fields(self._table)})
        if len(self._rows) >= self._group_rows:
            self._flush_rows()

    def append_batch(self, batch: pa.RecordBatch) -> None:
        """Writes the rows of a batch of a table without tensors."""
        self._flush_rows()
        self._write_full_groups(pa.Table.from_batches([batch]))

    def close(self) -> list[Offsets]:
        self._flush_rows()
        if self._waiting.num_rows:
            self._writer.write_table(self._waiting)
        self._writer.close()
        return _read_parquet_offsets(self._path, self._table, self._sizes)

    def _flush_rows(self) -> None:
        if self._rows:
            self._write_full_groups(to_arrow(self._table, self._rows))
            self._rows = []

    def _write_full_groups(self, rows: pa.Table) -> None:
        """Writes full row groups only, so that row groups do not depend on the batches."""
        waiting = pa.concat_tables([self._waiting, rows]) if self._waiting.num_rows else rows
        full = waiting.num_rows // self._group_rows * self._group_rows
        if full:
            self._writer.write_table(waiting.slice(0, full).combine_chunks(), row_group_size=self._group_rows)
        self._waiting = waiting.slice(full)


WRITERS: dict[Format, type[TFRecordWriter] | type[ParquetWriter]] = {
    "tfrecord": TFRecordWriter,
    "parquet": ParquetWriter,
}


@dataclass(eq=False)
class ShardWriter:
    """Writes one shard and its index to temporary files, and renames them on `close`.

    Args:
        root: The table's directory; the shard's paths are relative to it.
        directory: The directory for the files, within `root`.
        number: Number of the shard, out of `count`.
        make_writer: Creates the writer of the file; None for the format's own writer.
    """

    root: Path
    directory: str
    table: Table
    file_format: Format
    number: int
    count: int
    make_writer: type[TFRecordWriter] | None = None

    def __post_init__(self) -> None:
        self._directory = self.root / self.directory
        make_directory(self._directory)
        self._temporary = temporary_path(self._directory / "shard")
        self._writer = (self.make_writer or WRITERS[self.file_format])(self._temporary, self.table)
        self._keys: list[bytes] = []

    def append(self, row: Row) -> None:
        """Writes a row; raises ValueError if the key is not greater than the last one, or belongs to another shard."""
        key = row["key"]
        if self._keys and key <= self._keys[-1]:
            raise ValueError("rows must be in ascending order of key")
        self._check_shard(key)
        self._writer.append(row)
        self._keys.append(key)

    def append_batch(self, batch: pa.RecordBatch) -> None:
        """Writes the rows of a batch of a table without tensors.

        Raises:
            ValueError: Keys are not in ascending order, or belong to another shard, or the table has tensors.
        """
        if tensor_fields(self.table):
            raise ValueError("tensors must be written row by row, because the index locates each value")
        keys = batch["key"].to_pylist()
        if any(later <= earlier for earlier, later in pairwise([*self._keys[-1:], *keys])):
            raise ValueError("rows must be in ascending order of key")
        for key in keys[:1] + keys[-1:]:
            self._check_shard(key)
        self._writer.append_batch(batch)
        self._keys += keys

    def close(self) -> Shard | None:
        """Finishes the shard and renames its files; returns None, and leaves no file, if the shard has no rows."""
        offsets = self._writer.close()
        if not self._keys:
            self._temporary.unlink()
            return None
        data = self._rename(self._temporary, hash_file(self._temporary), self.file_format)
        index = None
        if tensor_fields(self.table):
            temporary = temporary_path(self._directory / "index")
            temporary.write_bytes(encode_index(self.table, self._keys, offsets))
            index = self._rename(temporary, data.name.split(".")[1], "index")
        return Shard(
            number=self.number,
            count=self.count,
            rows=len(self._keys),
            first_key=self._keys[0].hex(),
            last_key=self._keys[-1].hex(),
            data=describe_file(data, self.root),
            index=describe_file(index, self.root) if index else None,
        )

    def abandon(self) -> None:
        """Deletes the temporary file."""
        self._temporary.unlink(missing_ok=True)

    def _check_shard(self, key: bytes) -> None:
        if find_shard(key, self.count) != self.number:
            raise ValueError(f"key {key.hex()[:8]} does not belong to shard {self.number} of {self.count}")

    def _rename(self, temporary: Path, sha256: str, suffix: str) -> Path:
        name = f"{self.table.name}-{self.number:05d}-of-{self.count:05d}.{sha256[:8]}.{suffix}"
        replace_atomically(temporary, self._directory / name)
        return self._directory / name


def tensor_fields(table: Table) -> list[Field]:
    """Returns the table's tensor columns, whose values the index locates."""
    return [field for field in table.fields if field.kind == "tensor"]


def index_dtype(table: Table) -> np.dtype[Any]:
    """Returns the dtype of an index entry: `key`, then a `<u8` offset under the name of each tensor column.

    If the column is compressed, a `<u4` length follows under the name with the suffix `_bytes`.
    """
    columns = []
    for field in tensor_fields(table):
        columns.append((field.name, "<u8"))
        if field.compression != "none":
            columns.append((f"{field.name}_bytes", "<u4"))
    return np.dtype([("key", "u1", (KEY_BYTES,)), *columns])


def encode_index(table: Table, keys: Sequence[bytes], offsets: Sequence[Offsets]) -> bytes:
    """Returns the index of a shard, from its keys and the offsets of their values."""
    entries = np.zeros(len(keys), index_dtype(table))
    entries["key"] = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES)
    for column, name in enumerate((entries.dtype.names or ())[1:]):
        entries[name] = [row[column] for row in offsets]
    return entries.tobytes()


def value_span(entries: Any, field: Field) -> tuple[Any, Any]:
    """Returns the offset and length of a tensor's bytes in the shard file, for one index entry or an array of them."""
    return entries[field.name], field.nbytes if field.compression == "none" else entries[f"{field.name}_bytes"]


def record_end(entry: Any, table: Table) -> int:
    """Returns the end offset of an entry's TFRecord. The tensor whose name sorts last is last in the record."""
    offset, size = value_span(entry, max(tensor_fields(table), key=lambda field: field.name))
    return int(offset) + int(size) + _FRAME_TAIL


def read_index(path: Path, table: Table) -> NDArray[Any]:
    """Maps a shard's index into memory."""
    return np.memmap(path, index_dtype(table), mode="r")


def read_rows(path: Path, table: Table, file_format: Format) -> Iterator[dict[str, Any]]:
    """Iterates over the rows of a shard."""
    if file_format == "parquet":
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                yield from from_arrow(table, file.read_row_group(group))
        return
    for data in read_records(path):
        yield from_example(table, data)


def read_records(path: Path) -> Iterator[bytes]:
    """Iterates over the records of a TFRecord file; raises ValueError if a length or checksum is wrong."""
    with path.open("rb") as file:
        while head := file.read(_FRAME_HEAD):
            length, crc = struct.unpack("<QI", head)
            if crc != _masked_crc(head[:8]):
                raise ValueError(f"{path}: the length of a record is corrupt at byte {file.tell()}")
            data, tail = file.read(length), file.read(_FRAME_TAIL)
            if tail != struct.pack("<I", _masked_crc(data)):
                raise ValueError(f"{path}: a record is corrupt at byte {file.tell()}")
            yield data


def _compute_example_offsets(table: Table, sizes: Mapping[str, int], end: int) -> Offsets:
    """Computes the offsets of a row's tensors from the sizes of its values, all of them bytes, and the example's end.

    The entries of an example are sorted by name, and each ends with its value.
    """
    starts = {}
    for field in sorted(table.fields, key=lambda field: field.name, reverse=True):
        starts[field.name] = end - sizes[field.name]
        feature = _delimited_size(_delimited_size(sizes[field.name]))
        end -= _delimited_size(_delimited_size(len(field.name.encode())) + _delimited_size(feature))
    return _interleave(table, sizes, starts)


def _interleave(table: Table, sizes: Mapping[str, int], starts: Mapping[str, int]) -> Offsets:
    offsets = []
    for field in tensor_fields(table):
        offsets.append(starts[field.name])
        if field.compression != "none":
            offsets.append(sizes[field.name])
    return offsets


def _delimited_size(size: int) -> int:
    """Returns the size of a length-delimited protobuf field: tag, length as a varint, content."""
    return 1 + max(1, -(-size.bit_length() // 7)) + size


def _read_parquet_offsets(path: Path, table: Table, sizes: Sequence[Mapping[str, int]]) -> list[Offsets]:
    """Reads the offsets of each row's tensors. A column's page ends with its values, compressed ones after a length."""
    metadata, fields = pq.read_metadata(path), tensor_fields(table)
    prefix = {field.name: 0 if field.compression == "none" else _LENGTH_BYTES for field in fields}
    offsets, remaining = [], iter(sizes)
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        rows, starts = list(islice(remaining, group.num_rows)), {}
        for field in fields:
            chunk, name = group.column(table.fields.index(field)), field.name
            values = sum(row[name] + prefix[name] for row in rows)
            starts[name] = chunk.data_page_offset + chunk.total_compressed_size - values + prefix[name]
        for row in rows:
            offsets.append(_interleave(table, row, starts))
            starts = {name: start + row[name] + prefix[name] for name, start in starts.items()}
    return offsets


def _masked_crc(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return int(((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
