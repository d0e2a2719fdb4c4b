"""Reads tables without tensors in bounded memory.

Parquet row groups or TFRecords → record batches of even size → Arrow | tf.data
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

from features.store.shards import read_rows
from schemas.choices import Format
from schemas.records import from_arrow, to_arrow
from schemas.tables import KEY_BYTES, Field, Table


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
