"""Rows of a table as TFRecord examples and as Arrow rows.

A row is a dict from column name to `bytes`, `str`, `int`, list of `int` or NumPy array, as its `Field` says.
In a TFRecord a row is one `tf.train.Example` (tensorflow/core/example/example.proto), serialized with its map
entries in sorted order so that equal rows are equal bytes; a tensor is a bytes feature of its little-endian values,
compressed where its field says so. A tensor that is given as `bytes` is taken to be in that form already.
"""

from collections.abc import Iterable, Mapping
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.compression import compress, decompress
from schemas.tables import KEY_BYTES, Field, Table

Row = Mapping[str, Any]


def to_example(table: Table, row: Row) -> bytes:
    """The row as a serialized `tf.train.Example`, byte for byte the same for equal rows."""
    from tensorflow.core.example import example_pb2

    example = example_pb2.Example()
    for field in table.fields:
        feature = example.features.feature[field.name]
        value = to_plain(field, row[field.name])
        if field.kind in ("int", "ints"):
            feature.int64_list.value.extend(value if field.kind == "ints" else [value])
        else:
            feature.bytes_list.value.append(value.encode() if isinstance(value, str) else value)
    return cast(bytes, example.SerializeToString(deterministic=True))


def from_example(table: Table, serialized: bytes) -> dict[str, Any]:
    """The row that `to_example` serialized."""
    from tensorflow.core.example import example_pb2

    features = example_pb2.Example.FromString(serialized).features.feature
    row: dict[str, Any] = {}
    for field in table.fields:
        feature = features[field.name]
        if field.kind in ("int", "ints"):
            values = list(feature.int64_list.value)
            row[field.name] = values if field.kind == "ints" else values[0]
        else:
            (data,) = feature.bytes_list.value
            row[field.name] = from_plain(field, data.decode() if field.kind == "text" else data)
    return row


def build_parsing_spec(table: Table) -> dict[str, Any]:
    """What `tf.io.parse_example` needs for the table's TFRecords; decode tensors with `tf.io.decode_raw`.

    TensorFlow has no zstd, so compressed tensors are first decompressed by whoever reads.
    """
    import tensorflow as tf

    def spec(field: Field) -> Any:
        if field.kind == "ints":
            return tf.io.RaggedFeature(tf.int64)
        return tf.io.FixedLenFeature([], tf.int64 if field.kind == "int" else tf.string)

    return {field.name: spec(field) for field in table.fields}


def to_arrow(table: Table, rows: Iterable[Row]) -> pa.Table:
    """The rows as an Arrow table with the table's schema."""
    rows = list(rows)
    columns = [
        pa.array([to_plain(field, row[field.name]) for row in rows], type=field.arrow_field().type)
        for field in table.fields
    ]
    return pa.Table.from_arrays(columns, schema=table.arrow_schema())


def from_arrow(table: Table, data: pa.Table) -> list[dict[str, Any]]:
    """The rows that `to_arrow` put into an Arrow table."""
    columns = {field.name: data.column(field.name).to_pylist() for field in table.fields}
    return [
        {field.name: from_plain(field, columns[field.name][i]) for field in table.fields} for i in range(data.num_rows)
    ]


def to_plain(field: Field, value: Any) -> Any:
    """A tensor's bytes as kept; any other value as it is. ValueError where a tensor's shape or dtype is another."""
    if field.kind != "tensor" or isinstance(value, bytes):
        return value
    array = np.asarray(value)
    if array.shape != field.shape or array.dtype != field.numpy_dtype:
        raise ValueError(
            f"{field.name}: expected {field.dtype}{list(field.shape)}, got {array.dtype}{list(array.shape)}"
        )
    return compress(np.ascontiguousarray(array).tobytes(), field.compression)


def from_plain(field: Field, value: Any) -> Any:
    """The tensor in its bytes; any other value as it is."""
    if field.kind != "tensor":
        return value
    data = decompress(value, field.compression, field.nbytes)
    return np.frombuffer(data, field.numpy_dtype).reshape(field.shape)


def stack_keys(rows: pa.Table | pa.RecordBatch) -> NDArray[np.uint8]:
    """The column `key` of rows, uint8 [N, 32]."""
    return np.frombuffer(b"".join(rows["key"].to_pylist()), np.uint8).reshape(-1, KEY_BYTES)
