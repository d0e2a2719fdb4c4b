"""Reads whole tables in bounded memory, as Arrow record batches and through tf.data.

features:            keys of one key range at a time → batches of positions → columns → Arrow | tf.data
captions, catalogs:  Parquet row groups → record batches of even size → Arrow | tf.data
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.store.merge import ShardMerge, as_bytes
from features.store.shards import read_rows
from schemas.choices import Format
from schemas.records import from_arrow, to_arrow
from schemas.tables import KEY_BYTES, Field, Table

# === Features ===


def merged_positions(merge: ShardMerge, rows: int) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """Iterates over keys uint8 [N, 32] in ascending order and the positions int64 [N] of their rows in the table.

    Args:
        merge: The table's shards.
        rows: Rows per batch; the last batch may have fewer.
    """
    starts = np.cumsum([0, *(shard.rows for shard in merge.shards)])
    keys, positions = np.zeros((0, KEY_BYTES), np.uint8), np.zeros(0, np.int64)
    for number in range(merge.ranges):
        merged = merge.range(number)
        keys = np.concatenate([keys, as_bytes(merged.keys)])
        positions = np.concatenate([positions, starts[merged.shards] + merged.rows])
        full = len(keys) - len(keys) % rows
        for start in range(0, full, rows):
            yield keys[start : start + rows], positions[start : start + rows]
        keys, positions = keys[full:], positions[full:]
    if len(keys):
        yield keys, positions


def to_binary(values: NDArray[np.generic]) -> pa.Array:
    """Returns an array [N, ...] as N fixed-size binary values, without a copy."""
    size = values.nbytes // len(values)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(size), len(values), [None, pa.py_buffer(values)])


def to_objects(keys: NDArray[np.uint8]) -> NDArray[np.object_]:
    """Returns keys as an array of bytes objects. NumPy's own strings lose trailing zeros."""
    return np.array([key.tobytes() for key in keys], np.object_)


# === Rows in Parquet files ===


def read_parquet(paths: Iterable[Path], table: Table) -> pa.Table:
    """Reads the rows of Parquet files, one file after the other."""
    schema = table.arrow_schema()
    tables = [pq.read_table(path, schema=schema, partitioning=None) for path in paths]
    return pa.concat_tables(tables) if tables else schema.empty_table()


def row_batches(paths: Iterable[Path], table: Table, file_format: Format, rows: int) -> Iterator[pa.RecordBatch]:
    """Iterates over the rows of shards, `rows` per batch and fewer in the last."""
    waiting = table.arrow_schema().empty_table()
    for batch in _file_batches(paths, table, file_format, rows):
        waiting = pa.concat_tables([waiting, pa.Table.from_batches([batch], schema=waiting.schema)])
        full = len(waiting) - len(waiting) % rows
        yield from _slices(waiting.slice(0, full), rows)
        waiting = waiting.slice(full)
    yield from _slices(waiting, rows)


def row_dataset(batches: Callable[[], Iterator[pa.RecordBatch]], table: Table, prefetch: int) -> Any:
    """Returns record batches as a tf.data.Dataset of dicts by column: tf.string, tf.int64, or ragged tf.int64."""
    import tensorflow as tf

    def tensors() -> Iterator[dict[str, Any]]:
        for batch in batches():
            yield {field.name: _to_tensor(batch.column(field.name), field) for field in table.fields}

    def spec(field: Field) -> Any:
        if field.kind == "ints":
            return tf.RaggedTensorSpec((None, None), tf.int64, ragged_rank=1)
        return tf.TensorSpec((None,), tf.int64 if field.kind == "int" else tf.string)

    signature = {field.name: spec(field) for field in table.fields}
    return tf.data.Dataset.from_generator(tensors, output_signature=signature).prefetch(prefetch)


def find_row(path: Path, table: Table, file_format: Format, key: bytes) -> dict[str, Any] | None:
    """Returns the row of a key in a shard; None if the shard does not contain the key.

    In a Parquet file it reads one row group, and the keys of log2(row groups) others.
    """
    if file_format != "parquet":
        return next((row for row in read_rows(path, table, file_format) if row["key"] == key), None)
    with pq.ParquetFile(path) as file:

        def keys(group: int) -> Any:
            return file.read_row_group(group, columns=["key"]).column("key")

        group = bisect_left(range(file.num_row_groups), key, key=lambda group: keys(group)[-1].as_py())
        if group == file.num_row_groups:
            return None
        row = pc.index(keys(group), pa.scalar(key, pa.binary(KEY_BYTES))).as_py()
        return from_arrow(table, file.read_row_group(group).slice(row, 1))[0] if row >= 0 else None


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


def _to_tensor(column: Any, field: Field) -> Any:
    import tensorflow as tf

    if field.kind == "int":
        return column.to_numpy(zero_copy_only=False)
    if field.kind != "ints":
        return np.array(column.to_pylist(), np.object_)
    lengths = pc.list_value_length(column).cast(pa.int64())
    return tf.RaggedTensor.from_row_lengths(column.flatten().to_numpy(), lengths.to_numpy())
