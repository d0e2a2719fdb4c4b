"""Whole tables as streams in bounded memory: Arrow record batches, and tf.data.

features:            rows by key, a range of keys at a time → batches of positions → columns → Arrow | tf.data
captions, catalogs:  Parquet row groups → record batches of even size → Arrow | tf.data
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.store.merge import Merge, as_bytes
from features.store.shards import read_rows, tensor_fields
from features.store.storage_dtypes import Stored, decode
from schemas.choices import Format
from schemas.records import from_arrow, to_arrow
from schemas.tables import KEY_BYTES, Field, Table, features_table

if TYPE_CHECKING:
    from features.store import FeatureTable

Keys = NDArray[np.uint8]
Positions = NDArray[np.int64]


# === Features ===


def feature_schema(table: "FeatureTable") -> pa.Schema:
    """The schema of `feature_batches`: the table's own, with values as they are before compression."""
    return features_table(table.shape, table.table_config.dtype).arrow_schema()


def feature_batches(table: "FeatureTable", rows: int) -> Iterator[pa.RecordBatch]:
    """The table by key, each key once, so many rows a batch and fewer in the last."""
    schema = feature_schema(table)
    for keys, positions in _even(_by_key(table), rows):
        stored = table.stored(positions)
        columns = [_binary(keys), *(_binary(stored[field.name]) for field in tensor_fields(table.table))]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def feature_dataset(table: "FeatureTable", batch_size: int, prefetch: int) -> Any:
    """The table by key as a tf.data.Dataset of {"key", "value"} batches."""
    import tensorflow as tf

    dtype = decode(_none(table)).dtype

    def batches() -> Iterator[dict[str, Any]]:
        for keys, positions in _even(_by_key(table), batch_size):
            yield {"key": _strings(keys), "value": table.read(positions)}

    signature = {
        "key": tf.TensorSpec((None,), tf.string),
        "value": tf.TensorSpec((None, *table.shape), tf.as_dtype(dtype)),
    }
    return tf.data.Dataset.from_generator(batches, output_signature=signature).prefetch(prefetch)


def _by_key(table: "FeatureTable") -> Iterator[tuple[Keys, Positions]]:
    merge = Merge(table)
    starts = np.cumsum([0, *(shard.rows for shard in merge.shards)])
    for number in range(merge.ranges):
        rows = merge.range(number)
        yield as_bytes(rows.keys), starts[rows.shards] + rows.places


def _even(parts: Iterable[tuple[Keys, Positions]], rows: int) -> Iterator[tuple[Keys, Positions]]:
    """The parts divided anew, so many rows each and fewer in the last."""
    keys, positions = np.zeros((0, KEY_BYTES), np.uint8), np.zeros(0, np.int64)
    for more_keys, more_positions in parts:
        keys, positions = np.concatenate([keys, more_keys]), np.concatenate([positions, more_positions])
        whole = len(keys) - len(keys) % rows
        for start in range(0, whole, rows):
            yield keys[start : start + rows], positions[start : start + rows]
        keys, positions = keys[whole:], positions[whole:]
    if len(keys):
        yield keys, positions


def _none(table: "FeatureTable") -> Stored:
    return {field.name: np.zeros((0, *field.shape), field.numpy_dtype) for field in tensor_fields(table.table)}


def _binary(values: NDArray[np.generic]) -> pa.Array:
    """An array [N, ...] as N fixed-size binary values, without copying it."""
    size = values.nbytes // len(values)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(size), len(values), [None, pa.py_buffer(values)])


def _strings(keys: Keys) -> NDArray[np.object_]:
    """Keys as objects: NumPy's own strings lose zeros at the end."""
    return np.array([key.tobytes() for key in keys], np.object_)


# === Rows in Parquet files ===


def read_parquet(paths: Iterable[Path], table: Table) -> pa.Table:
    """The rows of Parquet files, one after the other."""
    schema = table.arrow_schema()
    tables = [pq.read_table(path, schema=schema, partitioning=None) for path in paths]
    return pa.concat_tables(tables) if tables else schema.empty_table()


def row_batches(paths: Iterable[Path], table: Table, file_format: Format, rows: int) -> Iterator[pa.RecordBatch]:
    """The rows of shards, so many a batch and fewer in the last."""
    waiting = table.arrow_schema().empty_table()
    for batch in _file_batches(paths, table, file_format, rows):
        waiting = pa.concat_tables([waiting, pa.Table.from_batches([batch], schema=waiting.schema)])
        whole = len(waiting) - len(waiting) % rows
        yield from _slices(waiting.slice(0, whole), rows)
        waiting = waiting.slice(whole)
    yield from _slices(waiting, rows)


def row_dataset(batches: Callable[[], Iterator[pa.RecordBatch]], table: Table, prefetch: int) -> Any:
    """Record batches as a tf.data.Dataset of dicts by column: strings, int64, ragged int64 for lists."""
    import tensorflow as tf

    def tensors() -> Iterator[dict[str, Any]]:
        for batch in batches():
            yield {field.name: _tensor(batch.column(field.name), field) for field in table.fields}

    def spec(field: Field) -> Any:
        if field.kind == "ints":
            return tf.RaggedTensorSpec((None, None), tf.int64, ragged_rank=1)
        return tf.TensorSpec((None,), tf.int64 if field.kind == "int" else tf.string)

    signature = {field.name: spec(field) for field in table.fields}
    return tf.data.Dataset.from_generator(tensors, output_signature=signature).prefetch(prefetch)


def find_row(path: Path, table: Table, file_format: Format, key: bytes) -> dict[str, Any] | None:
    """The row of a key in a shard, None where it has none; of Parquet, one row group and log2 of them in keys."""
    if file_format != "parquet":
        return next((row for row in read_rows(path, table, file_format) if row["key"] == key), None)
    with pq.ParquetFile(path) as file:
        groups = range(file.num_row_groups)
        group = bisect_left(groups, key, key=lambda number: _keys_of(file, number)[-1].as_py())
        if group == len(groups):
            return None
        place = pc.index(_keys_of(file, group), pa.scalar(key, pa.binary(KEY_BYTES))).as_py()
        return from_arrow(table, file.read_row_group(group).slice(place, 1))[0] if place >= 0 else None


def _keys_of(file: pq.ParquetFile, group: int) -> Any:
    return file.read_row_group(group, columns=["key"]).column("key")


def _file_batches(paths: Iterable[Path], table: Table, file_format: Format, rows: int) -> Iterator[pa.RecordBatch]:
    for path in paths:
        if file_format == "parquet":
            with pq.ParquetFile(path) as file:
                yield from file.iter_batches(rows)
        else:
            remaining = read_rows(path, table, file_format)
            while some := list(islice(remaining, rows)):
                yield from to_arrow(table, some).to_batches()


def _slices(table: pa.Table, rows: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(table), rows):
        yield from table.slice(start, rows).combine_chunks().to_batches()


def _tensor(column: Any, field: Field) -> Any:
    import tensorflow as tf

    if field.kind == "int":
        return column.to_numpy(zero_copy_only=False)
    if field.kind != "ints":
        return np.array(column.to_pylist(), np.object_)
    lengths = pc.list_value_length(column).cast(pa.int64())
    return tf.RaggedTensor.from_row_lengths(column.flatten().to_numpy(), lengths.to_numpy())
