"""Shards: files of rows sorted by key, as TFRecord or Parquet, with an index for random access.

A shard holds the keys that share a binary prefix: shard `number` of `count` (a power of two) has the keys whose
first log2(count) bits are `number`. The file name carries both, and the first digits of the file's own SHA-256, so
that a name never stands for two contents.

Index: one entry a row, in row order: the 32-byte key, then for every tensor column, in field order, the place of its
value bytes in the shard file as a little-endian unsigned 64-bit integer, and where the column is compressed their
length as a little-endian unsigned 32-bit integer. TFRecord framing as in tensorflow/core/lib/io/record_writer.h;
Parquet files keep values plain, one page a row group; what is compressed is each value for itself.
"""

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.io.atomic_files import describe_file, hash_file, make_directory, replace_atomically, temporary_path
from schemas.choices import Format
from schemas.manifests import Shard
from schemas.records import Row, from_arrow, from_example, to_arrow, to_example, to_plain
from schemas.table_config import SHORT_FINGERPRINT, compute_digest
from schemas.tables import KEY_BYTES, Field, Table

MAX_SHARDS = 1 << 16
SHARD_BYTES = 128 << 20
_ROW_GROUP_BYTES = 16 << 20
_ROW_GROUP_ROWS = 4096
_FRAME_HEAD = 12
_FRAME_TAIL = 4
_LENGTH = 4

# For each tensor column of a row, in field order: the place of its value, and its length where it is compressed.
Places = list[int]


def choose_shard_count(rows: int, row_bytes: int) -> int:
    """The smallest power of two that keeps a shard of these rows at or under about 128 MiB."""
    count = 1
    while count < MAX_SHARDS and rows * row_bytes / count > SHARD_BYTES:
        count *= 2
    return count


def find_shard(key: bytes, count: int) -> int:
    """The number of the shard that a key belongs to, out of `count`."""
    return int.from_bytes(key[:4], "big") * count >> 32


def find_shards(keys: NDArray[np.uint8], count: int) -> NDArray[np.int64]:
    """`shard_of` of many keys, uint8 [N, 32]."""
    heads = np.ascontiguousarray(keys[:, :4]).view(">u4")[:, 0]
    return heads.astype(np.int64) * count >> 32


def shard_name(stem: str, number: int, count: int, sha256: str, suffix: str) -> str:
    """A shard's file name, such as `features-00003-of-00064.1f2e3d4c.tfrecord`."""
    return f"{stem}-{number:05d}-of-{count:05d}.{sha256[:8]}.{suffix}"


def compute_commit_name(fingerprint: str, network: str, count: int, keys: str) -> str:
    """The directory of a commit of features within its table: a digest of what the commit is to hold.

    Args:
        fingerprint: str. The table's fingerprint.
        network: str. SHA-256 of the frozen graph.
        count: int. How many shards the key ranges divide into.
        keys: str. SHA-256 of all its keys, in ascending order.
    """
    return compute_digest([fingerprint, network, count, keys])[:SHORT_FINGERPRINT]


class RowWriter(Protocol):
    """Writes rows to one file and tells where their tensors went."""

    def append(self, row: Row) -> None:
        """Add a row."""

    def close(self) -> list[Places]:
        """Finish the file; the places of each row's tensor values."""


@runtime_checkable
class BatchWriter(RowWriter, Protocol):
    """A writer of rows that takes many at once."""

    def append_batch(self, batch: pa.RecordBatch) -> None:
        """Add the rows of a batch that has the schema of the table, which has no tensors."""


class TFRecordWriter:
    """Rows as `tf.train.Example`s in TFRecord framing."""

    def __init__(self, path: Path, table: Table) -> None:
        self._table = table
        self._file = path.open("wb")
        self._places: list[Places] = []

    def append(self, row: Row) -> None:
        """Add a row."""
        plain = {field.name: to_plain(field, row[field.name]) for field in self._table.fields}
        data = to_example(self._table, plain)
        start = self._file.tell() + _FRAME_HEAD
        head = struct.pack("<Q", len(data))
        self._file.write(head + struct.pack("<I", _masked_crc(head)))
        self._file.write(data)
        self._file.write(struct.pack("<I", _masked_crc(data)))
        if tensor_fields(self._table):
            sizes = {field.name: len(plain[field.name]) for field in self._table.fields}
            self._places.append(_example_places(self._table, sizes, start + len(data)))

    def append_batch(self, batch: pa.RecordBatch) -> None:
        """Add the rows of a batch that has the schema of the table, which has no tensors."""
        for row in batch.to_pylist():
            self.append(row)

    def close(self) -> list[Places]:
        """Finish the file; the places of each row's tensor values."""
        self._file.close()
        return self._places


class ParquetWriter:
    """Rows as Parquet: no dictionary, no compressed pages, one page a row group, so that values lie bare in it."""

    def __init__(self, path: Path, table: Table) -> None:
        self._table = table
        self._path = path
        self._rows: list[Row] = []
        self._waiting = table.arrow_schema().empty_table()
        self._sizes: list[dict[str, int]] = []
        row_bytes = sum(field.nbytes for field in table.fields)
        self._group = max(1, min(_ROW_GROUP_ROWS, _ROW_GROUP_BYTES // max(1, row_bytes)))
        self._writer = pq.ParquetWriter(
            path,
            table.arrow_schema(),
            compression="none",
            use_dictionary=False,
            write_statistics=False,
            data_page_size=4 * _ROW_GROUP_BYTES + row_bytes,
            write_batch_size=self._group,
        )

    def append(self, row: Row) -> None:
        """Add a row."""
        plain = {field.name: to_plain(field, row[field.name]) for field in self._table.fields}
        self._rows.append(plain)
        self._sizes.append({field.name: len(plain[field.name]) for field in tensor_fields(self._table)})
        if len(self._rows) >= self._group:
            self._take_rows()

    def append_batch(self, batch: pa.RecordBatch) -> None:
        """Add the rows of a batch that has the schema of the table, which has no tensors."""
        self._take_rows()
        self._take(pa.Table.from_batches([batch]))

    def close(self) -> list[Places]:
        """Finish the file; the places of each row's tensor values."""
        self._take_rows()
        if self._waiting.num_rows:
            self._writer.write_table(self._waiting)
        self._writer.close()
        return _parquet_places(self._path, self._table, self._sizes)

    def _take_rows(self) -> None:
        if self._rows:
            self._take(to_arrow(self._table, self._rows))
            self._rows = []

    def _take(self, rows: pa.Table) -> None:
        """Write what fills row groups, so that these do not depend on how the rows came."""
        waiting = pa.concat_tables([self._waiting, rows]) if self._waiting.num_rows else rows
        whole = waiting.num_rows // self._group * self._group
        if whole:
            self._writer.write_table(waiting.slice(0, whole).combine_chunks(), row_group_size=self._group)
        self._waiting = waiting.slice(whole)


MakeWriter = Callable[[Path, Table], RowWriter]
WRITERS: dict[Format, MakeWriter] = {"tfrecord": TFRecordWriter, "parquet": ParquetWriter}


class ShardWriter:
    """Writes one shard and its index aside; they become visible under their final names on `close`.

    Args:
        root: Path. The table's directory; the shard's paths are relative to it.
        directory: str. The directory within `root` that the files go to.
        table: Table. The declaration of the rows.
        file_format: str. `tfrecord` or `parquet`.
        number, count: int. Which shard of how many.
        make_writer: function of a path and a table, or None. Makes the writer of the file; None for the format's own.
    """

    def __init__(
        self,
        root: Path,
        directory: str,
        table: Table,
        file_format: Format,
        number: int,
        count: int,
        make_writer: MakeWriter | None = None,
    ) -> None:
        self._root = root
        self._directory = root / directory
        self._table = table
        self._format = file_format
        self._number = number
        self._count = count
        make_directory(self._directory)
        self._aside = temporary_path(self._directory / "shard")
        self._writer = (make_writer or WRITERS[file_format])(self._aside, table)
        self._keys: list[bytes] = []

    def append(self, row: Row) -> None:
        """Add a row; keys must come in ascending order and belong to this shard."""
        key = row["key"]
        if self._keys and key <= self._keys[-1]:
            raise ValueError("rows must come in ascending order of key")
        self._check_shard(key)
        self._writer.append(row)
        self._keys.append(key)

    def append_batch(self, batch: pa.RecordBatch) -> None:
        """Add the rows of a batch, as `append` would one by one; the table has no tensors."""
        if tensor_fields(self._table) or not isinstance(self._writer, BatchWriter):
            raise ValueError("the values of tensors are located row by row")
        keys = batch["key"].to_pylist()
        if any(later <= earlier for earlier, later in pairwise([*self._keys[-1:], *keys])):
            raise ValueError("rows must come in ascending order of key")
        for key in keys[:1] + keys[-1:]:
            self._check_shard(key)
        self._writer.append_batch(batch)
        self._keys += keys

    def close(self) -> Shard | None:
        """Finish and publish; None where no row was written (then no file is left)."""
        places = self._writer.close()
        if not self._keys:
            self._aside.unlink()
            return None
        data = self._publish(self._aside, hash_file(self._aside), self._format)
        index = None
        if tensor_fields(self._table):
            temporary = temporary_path(self._directory / "index")
            temporary.write_bytes(encode_index(self._table, self._keys, places))
            index = self._publish(temporary, data.name.split(".")[1], "index")
        return Shard(
            number=self._number,
            count=self._count,
            rows=len(self._keys),
            first_key=self._keys[0].hex(),
            last_key=self._keys[-1].hex(),
            data=describe_file(data, self._root),
            index=describe_file(index, self._root) if index else None,
        )

    def abandon(self) -> None:
        """Leave nothing behind."""
        self._aside.unlink(missing_ok=True)

    def _check_shard(self, key: bytes) -> None:
        if find_shard(key, self._count) != self._number:
            raise ValueError(f"key {key.hex()[:8]} does not belong to shard {self._number} of {self._count}")

    def _publish(self, temporary: Path, sha256: str, suffix: str) -> Path:
        path = self._directory / shard_name(self._table.name, self._number, self._count, sha256, suffix)
        replace_atomically(temporary, path)
        return path


def tensor_fields(table: Table) -> list[Field]:
    """The table's tensor columns, whose values the index locates."""
    return [field for field in table.fields if field.kind == "tensor"]


def index_dtype(table: Table) -> np.dtype[Any]:
    """One index entry: `key` (32 bytes), then for each tensor column a `<u8` place under the column's name.

    Where the column is compressed, a `<u4` length follows under the name with `_bytes` behind it.
    """
    columns = []
    for field in tensor_fields(table):
        columns.append((field.name, "<u8"))
        if field.compression != "none":
            columns.append((_length_of(field), "<u4"))
    return np.dtype([("key", "u1", (KEY_BYTES,)), *columns])


def encode_index(table: Table, keys: Sequence[bytes], places: Sequence[Places]) -> bytes:
    """The index of a shard, from its keys and the places of their values."""
    entries = np.zeros(len(keys), index_dtype(table))
    entries["key"] = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES)
    for column, name in enumerate((entries.dtype.names or ())[1:]):
        entries[name] = [row[column] for row in places]
    return entries.tobytes()


def value_span(entries: Any, field: Field) -> tuple[Any, Any]:
    """Where a tensor's bytes lie in the shard file, and how many they are, by one index entry or an array of them."""
    return entries[field.name], field.nbytes if field.compression == "none" else entries[_length_of(field)]


def record_end(entry: Any, table: Table) -> int:
    """Where the TFRecord of an index entry ends: its last value is that of the tensor whose name sorts last."""
    place, size = value_span(entry, max(tensor_fields(table), key=lambda field: field.name))
    return int(place) + int(size) + _FRAME_TAIL


def read_index(path: Path, table: Table) -> NDArray[Any]:
    """A shard's index, mapped into memory rather than read."""
    return np.memmap(path, index_dtype(table), mode="r")


def read_rows(path: Path, table: Table, file_format: Format) -> Iterator[dict[str, Any]]:
    """The rows of a shard, in order."""
    if file_format == "parquet":
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                yield from from_arrow(table, file.read_row_group(group))
        return
    for data in read_records(path):
        yield from_example(table, data)


def read_records(path: Path) -> Iterator[bytes]:
    """The records of a TFRecord file, in order; ValueError where a length or checksum does not hold."""
    with path.open("rb") as file:
        while head := file.read(_FRAME_HEAD):
            length, crc = struct.unpack("<QI", head)
            if crc != _masked_crc(head[:8]):
                raise ValueError(f"{path}: a record's length is damaged at byte {file.tell()}")
            data, tail = file.read(length), file.read(_FRAME_TAIL)
            if tail != struct.pack("<I", _masked_crc(data)):
                raise ValueError(f"{path}: a record is damaged at byte {file.tell()}")
            yield data


def _example_places(table: Table, sizes: Mapping[str, int], end: int) -> Places:
    """The places of a row's tensors, from the sizes of its values, all of them bytes, and where its example ends.

    An example's entries are sorted by name, and each ends with its value.
    """
    starts = {}
    for field in sorted(table.fields, key=lambda field: field.name, reverse=True):
        starts[field.name] = end - sizes[field.name]
        end -= _entry_size(field.name, sizes[field.name])
    return _interleaved(table, sizes, starts)


def _interleaved(table: Table, sizes: Mapping[str, int], starts: Mapping[str, int]) -> Places:
    """Place, and length where it varies, of each tensor in field order."""
    places = []
    for field in tensor_fields(table):
        places.append(starts[field.name])
        if field.compression != "none":
            places.append(sizes[field.name])
    return places


def _length_of(field: Field) -> str:
    return f"{field.name}_bytes"


def _entry_size(name: str, size: int) -> int:
    """Bytes that a map entry of an example takes for a bytes feature of this size."""
    feature = _delimited(_delimited(size))
    return _delimited(_delimited(len(name.encode())) + _delimited(feature))


def _delimited(size: int) -> int:
    """Bytes that a length-delimited protobuf field takes: tag, length as a varint, contents."""
    return 1 + max(1, -(-size.bit_length() // 7)) + size


def _parquet_places(path: Path, table: Table, sizes: Sequence[Mapping[str, int]]) -> list[Places]:
    """The places of every row's tensors: each column's page ends with its values, those that vary behind a length."""
    metadata = pq.read_metadata(path)
    places, remaining = [], iter(sizes)
    for group in range(metadata.num_row_groups):
        some = list(islice(remaining, metadata.row_group(group).num_rows))
        starts = {}
        for field in tensor_fields(table):
            chunk, before = metadata.row_group(group).column(table.fields.index(field)), _before(field)
            values = sum(row[field.name] + before for row in some)
            starts[field.name] = chunk.data_page_offset + chunk.total_compressed_size - values + before
        for row in some:
            places.append(_interleaved(table, row, starts))
            for field in tensor_fields(table):
                starts[field.name] += row[field.name] + _before(field)
    return places


def _before(field: Field) -> int:
    """Bytes of the length that Parquet puts before a value that varies in size."""
    return 0 if field.compression == "none" else _LENGTH


def _masked_crc(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return int(((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
