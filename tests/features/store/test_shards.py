"""Shards contain rows sorted by key, locate each value, and have equal bytes for equal rows."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from features.store import storage_dtypes
from features.store.shards import (
    SHARD_BYTES,
    ShardWriter,
    choose_shard_count,
    find_shard,
    find_shards,
    read_index,
    read_records,
    read_rows,
    tensor_fields,
    value_span,
)
from schemas.choices import Compression
from schemas.compression import decompress
from schemas.manifests import Shard
from schemas.records import build_parsing_spec, to_arrow
from schemas.tables import CAPTIONS, features_table

FORMATS = ("tfrecord", "parquet")
DTYPES = ("float32", "float16", "bfloat16", "int8")


def some_rows(count: int, shape: tuple[int, ...], dtype: Any) -> list[dict[str, Any]]:
    generator = np.random.default_rng(0)
    keys = sorted(hashlib.sha256(str(number).encode()).digest() for number in range(count))
    return [
        {"key": key, **storage_dtypes.encode(generator.standard_normal(shape, dtype=np.float32), dtype)} for key in keys
    ]


def write(
    root: Path,
    rows: list[dict[str, Any]],
    shape: tuple[int, ...],
    dtype: str,
    file_format: Any,
    compression: Compression = "none",
) -> Shard:
    writer = ShardWriter(root, "commit", features_table(shape, dtype, compression), file_format, 0, 1)
    for row in rows:
        writer.append(row)
    shard = writer.close()
    assert shard is not None
    return shard


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 7), (6,), (1,)])
def test_the_index_locates_every_value(tmp_path: Path, file_format: Any, dtype: Any, shape: tuple[int, ...]) -> None:
    rows, table = some_rows(50, shape, dtype), features_table(shape, dtype)
    shard = write(tmp_path, rows, shape, dtype, file_format)
    assert shard.index is not None
    data = (tmp_path / shard.data.path).read_bytes()
    for entry, row in zip(read_index(tmp_path / shard.index.path, table), rows, strict=True):
        assert entry["key"].tobytes() == row["key"]
        for field in tensor_fields(table):
            place = int(entry[field.name])
            assert data[place : place + field.nbytes] == row[field.name].tobytes()


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5, 700), (6,), (1,)])
def test_the_index_locates_every_compressed_value(
    tmp_path: Path, file_format: Any, dtype: Any, shape: tuple[int, ...]
) -> None:
    rows, table = some_rows(50, shape, dtype), features_table(shape, dtype, "zstd")
    shard = write(tmp_path, rows, shape, dtype, file_format, "zstd")
    data = (tmp_path / shard.data.path).read_bytes()
    for entry, row in zip(read_index(tmp_path / shard.index.path, table), rows, strict=True):  # type: ignore[union-attr]
        for field in tensor_fields(table):
            place, size = map(int, value_span(entry, field))
            kept = data[place : place + size]
            assert decompress(kept, field.compression, field.nbytes) == row[field.name].tobytes()
    back = list(read_rows(tmp_path / shard.data.path, table, file_format))
    assert all(np.array_equal(one["value"], other["value"]) for one, other in zip(back, rows, strict=True))


@pytest.mark.parametrize("file_format", FORMATS)
def test_rows_larger_than_a_page_are_located(tmp_path: Path, file_format: Any) -> None:
    rows = some_rows(40, (64, 2048), "float16")
    shard = write(tmp_path, rows, (64, 2048), "float16", file_format)
    index = read_index(tmp_path / shard.index.path, features_table((64, 2048), "float16"))  # type: ignore[union-attr]
    data = (tmp_path / shard.data.path).read_bytes()
    for entry, row in zip(index, rows, strict=True):
        assert data[int(entry["value"]) :][: row["value"].nbytes] == row["value"].tobytes()


@pytest.mark.parametrize("file_format", FORMATS)
def test_rows_are_read_as_they_were_written(tmp_path: Path, file_format: Any) -> None:
    rows = some_rows(30, (5, 7), "int8")
    shard = write(tmp_path, rows, (5, 7), "int8", file_format)
    back = list(read_rows(tmp_path / shard.data.path, features_table((5, 7), "int8"), file_format))
    assert [row["key"] for row in back] == [row["key"] for row in rows]
    assert all(np.array_equal(one["value"], other["value"]) for one, other in zip(back, rows, strict=True))


@pytest.mark.parametrize("file_format", FORMATS)
def test_equal_rows_yield_equal_files_and_names(tmp_path: Path, file_format: Any) -> None:
    rows = some_rows(20, (5, 7), "float16")
    one, other = (write(tmp_path / name, rows, (5, 7), "float16", file_format) for name in ("one", "other"))
    assert one == other
    assert one.data.path.startswith("commit/features-00000-of-00001.")
    assert one.data.path.endswith(f".{file_format}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensorflow_reads_the_tfrecords(tmp_path: Path, dtype: Any) -> None:
    rows, table = some_rows(10, (5, 7), dtype), features_table((5, 7), dtype)
    shard = write(tmp_path, rows, (5, 7), dtype, "tfrecord")
    serialized = tf.data.TFRecordDataset(str(tmp_path / shard.data.path))
    records = list(serialized.map(lambda record: tf.io.parse_single_example(record, build_parsing_spec(table))))
    assert [record["key"].numpy() for record in records] == [row["key"] for row in rows]
    for field in tensor_fields(table):
        values = [tf.io.decode_raw(record[field.name], tf.as_dtype(field.numpy_dtype)) for record in records]
        assert all(
            np.array_equal(value.numpy().reshape(field.shape), row[field.name])
            for value, row in zip(values, rows, strict=True)
        )


def test_a_corrupt_record_is_an_error(tmp_path: Path) -> None:
    shard = write(tmp_path, some_rows(3, (5, 7), "float16"), (5, 7), "float16", "tfrecord")
    path = tmp_path / shard.data.path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="corrupt"):
        list(read_records(path))


def test_rows_out_of_order_or_of_another_shard_are_refused(tmp_path: Path) -> None:
    rows = some_rows(8, (2,), "float16")
    writer = ShardWriter(tmp_path, "commit", features_table((2,), "float16"), "tfrecord", 0, 1)
    writer.append(rows[1])
    with pytest.raises(ValueError, match="ascending"):
        writer.append(rows[0])
    half = ShardWriter(tmp_path, "commit", features_table((2,), "float16"), "tfrecord", 0, 2)
    with pytest.raises(ValueError, match="does not belong"):
        half.append(next(row for row in rows if row["key"][0] >= 128))


def test_a_shard_without_rows_leaves_no_file(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "commit", features_table((2,), "float16"), "tfrecord", 0, 1)
    assert writer.close() is None
    assert list((tmp_path / "commit").iterdir()) == []


def test_shards_are_nested_key_prefixes() -> None:
    for key in (hashlib.sha256(bytes([n])).digest() for n in range(64)):
        assert find_shard(key, 1) == 0
        for count in (2, 16, 1024):
            assert find_shard(key, 2 * count) // 2 == find_shard(key, count)
            assert find_shard(key, count) == int.from_bytes(key, "big") >> (256 - count.bit_length() + 1)


def test_the_shards_of_many_keys_are_those_of_each() -> None:
    keys = [hashlib.sha256(bytes([n])).digest() for n in range(64)]
    for count in (1, 16, 1 << 16):
        together = find_shards(np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32), count)
        assert together.tolist() == [find_shard(key, count) for key in keys]


@pytest.mark.parametrize(("rows", "count"), [(0, 1), (1, 1), (512, 1), (513, 2), (1024, 2), (5000, 16), (82_783, 256)])
def test_the_shard_count_is_the_smallest_that_fits(rows: int, count: int) -> None:
    assert choose_shard_count(rows, SHARD_BYTES // 512) == count


def some_captions(count: int) -> list[dict[str, Any]]:
    keys = sorted(hashlib.sha256(str(number).encode()).digest() for number in range(count))
    common = {"dataset": "d", "image_id": "i", "split": "train", "caption": "a dog"}
    return [
        {**common, "key": key, "caption_id": str(n), "tokens": [2, *[4] * (n % 9), 3]} for n, key in enumerate(keys)
    ]


@pytest.mark.parametrize("file_format", FORMATS)
@pytest.mark.parametrize("sizes", [[9000], [1, 4095, 4904], [5000, 4000], [0, 3, 8997]])
def test_rows_written_in_batches_yield_the_same_bytes(tmp_path: Path, file_format: Any, sizes: list[int]) -> None:
    rows = some_captions(9000)
    one_by_one = ShardWriter(tmp_path, "rows", CAPTIONS, file_format, 0, 1)
    for row in rows:
        one_by_one.append(row)
    table, start = to_arrow(CAPTIONS, rows), 0
    batches = ShardWriter(tmp_path, "batches", CAPTIONS, file_format, 0, 1)
    for size in sizes:
        for batch in table.slice(start, size).to_batches():
            batches.append_batch(batch)
        start += size
    made, other = one_by_one.close(), batches.close()
    assert made is not None
    assert other is not None
    assert (other.data.sha256, other.rows, other.last_key) == (made.data.sha256, 9000, made.last_key)


def test_batches_out_of_order_or_of_another_shard_are_refused(tmp_path: Path) -> None:
    (batch,) = to_arrow(CAPTIONS, some_captions(64)).to_batches()
    backwards = batch.take(pa.array([1, 0]))
    with pytest.raises(ValueError, match="ascending"):
        ShardWriter(tmp_path, "c", CAPTIONS, "parquet", 0, 1).append_batch(backwards)
    writer = ShardWriter(tmp_path, "c", CAPTIONS, "parquet", 0, 1)
    writer.append_batch(batch)
    with pytest.raises(ValueError, match="ascending"):
        writer.append_batch(batch)
    with pytest.raises(ValueError, match="does not belong to shard 0 of 2"):
        ShardWriter(tmp_path, "c", CAPTIONS, "parquet", 0, 2).append_batch(batch)
    with pytest.raises(ValueError, match="row by row"):
        ShardWriter(tmp_path, "c", features_table((2,), "float32"), "parquet", 0, 1).append_batch(batch)
