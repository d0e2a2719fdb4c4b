"""Shards: files of rows sorted by key, as TFRecord or Parquet, with an index for random access.

A shard holds the keys that share a binary prefix: shard `number` of `count` (a power of two) has the keys whose
first log2(count) bits are `number`. The file name carries both, and the first digits of the file's own SHA-256, so
that a name never stands for two contents.

Index: one entry a row, in row order: the 32-byte key, then for every tensor column, in field order, the place of its
value bytes in the shard file as a little-endian unsigned 64-bit integer. TFRecord framing as in
tensorflow/core/lib/io/record_writer.h; Parquet files keep tensors plain and uncompressed, one page a row group.
"""

import hashlib
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import google_crc32c
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.files import aside_of, entry_of, publish, sha256_of
from schemas.manifests import Shard
from schemas.recipes import SHORT_FINGERPRINT, Format, digest_of
from schemas.records import Row, from_arrow, from_example, to_arrow, to_example
from schemas.tables import KEY_BYTES, Field, Table

MAX_SHARDS = 1 << 16
SHARD_BYTES = 128 << 20
_ROW_GROUP_BYTES = 16 << 20
_ROW_GROUP_ROWS = 4096
_FRAME_HEAD = 12
_FRAME_TAIL = 4


def shard_count(rows: int, row_bytes: int) -> int:
    """The smallest power of two that keeps a shard of these rows at or under about 128 MiB."""
    count = 1
    while count < MAX_SHARDS and rows * row_bytes / count > SHARD_BYTES:
        count *= 2
    return count


def shard_of(key: bytes, count: int) -> int:
    """The number of the shard that a key belongs to, out of `count`."""
    return int.from_bytes(key[:4], "big") * count >> 32


def shard_name(stem: str, number: int, count: int, sha256: str, suffix: str) -> str:
    """A shard's file name, such as `features-00003-of-00064.1f2e3d4c.tfrecord`."""
    return f"{stem}-{number:05d}-of-{count:05d}.{sha256[:8]}.{suffix}"


def commit_name(fingerprint: str, network: str, count: int, keys: str) -> str:
    """The directory of a commit of features within its table: a digest of what the commit is to hold.

    Args:
        fingerprint: str. The table's fingerprint.
        network: str. SHA-256 of the frozen graph.
        count: int. How many shards the key ranges divide into.
        keys: str. SHA-256 of all its keys, in ascending order.
    """
    return digest_of([fingerprint, network, count, keys])[:SHORT_FINGERPRINT]


class RowWriter(Protocol):
    """Writes rows to one file and tells where their tensors went."""

    def append(self, row: Row) -> None:
        """Add a row."""

    def close(self) -> list[list[int]]:
        """Finish the file; the places of each row's tensor values."""


class TFRecordWriter:
    """Rows as `tf.train.Example`s in TFRecord framing."""

    def __init__(self, path: Path, table: Table) -> None:
        self._table = table
        self._file = path.open("wb")
        self._places: list[list[int]] = []
        self._within = tensor_places(table)

    def append(self, row: Row) -> None:
        """Add a row."""
        data = to_example(self._table, row)
        start = self._file.tell() + _FRAME_HEAD
        head = struct.pack("<Q", len(data))
        self._file.write(head + struct.pack("<I", _masked_crc(head)))
        self._file.write(data)
        self._file.write(struct.pack("<I", _masked_crc(data)))
        self._places.append([start + place for place in self._within])

    def close(self) -> list[list[int]]:
        """Finish the file; the places of each row's tensor values."""
        self._file.close()
        return self._places


class ParquetWriter:
    """Rows as Parquet: no dictionary, no compression, one page a row group, so that tensors lie bare in the file."""

    def __init__(self, path: Path, table: Table) -> None:
        self._table = table
        self._path = path
        self._rows: list[Row] = []
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
        self._rows.append(row)
        if len(self._rows) >= self._group:
            self._flush()

    def close(self) -> list[list[int]]:
        """Finish the file; the places of each row's tensor values."""
        self._flush()
        self._writer.close()
        return list(_parquet_places(self._path, self._table))

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(to_arrow(self._table, self._rows))
            self._rows = []


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
        self._directory.mkdir(parents=True, exist_ok=True)
        self._aside = aside_of(self._directory / "shard")
        self._writer = (make_writer or WRITERS[file_format])(self._aside, table)
        self._keys: list[bytes] = []

    def append(self, row: Row) -> None:
        """Add a row; keys must come in ascending order and belong to this shard."""
        key = row["key"]
        if self._keys and key <= self._keys[-1]:
            raise ValueError("rows must come in ascending order of key")
        if shard_of(key, self._count) != self._number:
            raise ValueError(f"key {key.hex()[:8]} does not belong to shard {self._number} of {self._count}")
        self._writer.append(row)
        self._keys.append(key)

    def close(self) -> Shard | None:
        """Finish and publish; None where no row was written (then no file is left)."""
        places = self._writer.close()
        if not self._keys:
            self._aside.unlink()
            return None
        data = self._publish(self._aside, sha256_of(self._aside), self._format)
        index = None
        if tensor_fields(self._table):
            aside = aside_of(self._directory / "index")
            aside.write_bytes(index_bytes(self._table, self._keys, places))
            index = self._publish(aside, data.name.split(".")[1], "index")
        return Shard(
            number=self._number,
            count=self._count,
            rows=len(self._keys),
            first_key=self._keys[0].hex(),
            last_key=self._keys[-1].hex(),
            data=entry_of(data, self._root),
            index=entry_of(index, self._root) if index else None,
        )

    def abandon(self) -> None:
        """Leave nothing behind."""
        self._aside.unlink(missing_ok=True)

    def _publish(self, aside: Path, sha256: str, suffix: str) -> Path:
        path = self._directory / shard_name(self._table.name, self._number, self._count, sha256, suffix)
        publish(aside, path)
        return path


def tensor_fields(table: Table) -> list[Field]:
    """The table's tensor columns, whose values the index locates."""
    return [field for field in table.fields if field.kind == "tensor"]


def index_dtype(table: Table) -> np.dtype[Any]:
    """One index entry: `key` (32 bytes), then one `<u8` place a tensor column, under the column's name."""
    places = [(field.name, "<u8") for field in tensor_fields(table)]
    return np.dtype([("key", "u1", (KEY_BYTES,)), *places])


def index_bytes(table: Table, keys: Sequence[bytes], places: Sequence[Sequence[int]]) -> bytes:
    """The index of a shard, from its keys and the places of their values."""
    entries = np.zeros(len(keys), index_dtype(table))
    entries["key"] = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES)
    for column, field in enumerate(tensor_fields(table)):
        entries[field.name] = [row[column] for row in places]
    return entries.tobytes()


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


def tensor_places(table: Table) -> list[int]:
    """Where each tensor's bytes lie within a serialized example; the same for every row of a table of fixed sizes."""
    tensors = tensor_fields(table)
    row = {field.name: _marker(field) for field in table.fields}
    if not tensors:
        return []
    data = to_example(table, row)
    return [data.index(row[field.name].tobytes()) for field in tensors]


def _marker(field: Field) -> Any:
    if field.kind != "tensor":
        return {"bytes": bytes(field.size), "text": "", "int": 0, "ints": []}[field.kind]
    seed = hashlib.sha256(field.name.encode()).digest()
    repeated = (seed * (field.nbytes // len(seed) + 1))[: field.nbytes]
    return np.frombuffer(repeated, field.numpy_dtype).reshape(field.shape)


def _parquet_places(path: Path, table: Table) -> Iterator[list[int]]:
    metadata = pq.read_metadata(path)
    columns = [(table.fields.index(field), field.nbytes) for field in tensor_fields(table)]
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        starts = []
        for column, nbytes in columns:
            chunk = metadata.row_group(group).column(column)
            starts.append(chunk.data_page_offset + chunk.total_compressed_size - rows * nbytes)
        for row in range(rows):
            yield [start + row * nbytes for start, (_, nbytes) in zip(starts, columns, strict=True)]


def _masked_crc(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return int(((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
