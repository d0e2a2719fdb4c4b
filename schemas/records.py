"""Converts rows of a table to and from TFRecord examples and Arrow tables.

A row is a dict from column name to `bytes`, `str`, `int`, list of `int` or NumPy array, as declared by its `Field`.
In a TFRecord, a row is one `tf.train.Example` (tensorflow/core/example/example.proto), serialized with sorted map
entries, so that equal rows are equal bytes. A tensor is a bytes feature of its little-endian values, compressed if its
field has a compression. A tensor that is passed as `bytes` must already have this form.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.compression import compress, decompress
from schemas.example_encoding import decode_example, encode_example
from schemas.tables import KEY_BYTES, Field, Table

Row = Mapping[str, Any]


def to_example(table: Table, row: Row) -> bytes:
    """Returns the row as a serialized `tf.train.Example`, byte for byte the same for equal rows."""
    features: dict[str, bytes | Sequence[int]] = {}
    for field in table.fields:
        value = to_plain(field, row[field.name])
        if field.kind in ("int", "ints"):
            features[field.name] = value if field.kind == "ints" else [value]
        else:
            features[field.name] = value.encode() if isinstance(value, str) else value
    return encode_example(features)


def from_example(table: Table, serialized: bytes) -> dict[str, Any]:
    """Returns the row that `to_example` serialized."""
    features = decode_example(serialized)
    row: dict[str, Any] = {}
    for field in table.fields:
        values = features[field.name]
        if field.kind in ("int", "ints"):
            row[field.name] = values if field.kind == "ints" else values[0]
        else:
            (data,) = values
            row[field.name] = _from_plain(field, data.decode() if field.kind == "text" else data)
    return row


def build_parsing_spec(table: Table) -> dict[str, Any]:
    """Returns the features that `tf.io.parse_example` needs. Tensors need `tf.io.decode_raw`, after decompression."""
    import tensorflow as tf

    def spec(field: Field) -> Any:
        if field.kind == "ints":
            return tf.io.RaggedFeature(tf.int64)
        return tf.io.FixedLenFeature([], tf.int64 if field.kind == "int" else tf.string)

    return {field.name: spec(field) for field in table.fields}


def to_arrow(table: Table, rows: Iterable[Row]) -> pa.Table:
    """Returns the rows as an Arrow table with the table's schema."""
    rows = list(rows)
    schema = table.arrow_schema()
    columns = [pa.array([to_plain(f, row[f.name]) for row in rows], schema.field(f.name).type) for f in table.fields]
    return pa.Table.from_arrays(columns, schema=schema)


def from_arrow(table: Table, data: pa.Table) -> list[dict[str, Any]]:
    """Returns the rows of an Arrow table from `to_arrow`."""
    names = [field.name for field in table.fields]
    columns = [[_from_plain(field, value) for value in data.column(field.name).to_pylist()] for field in table.fields]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def to_plain(field: Field, value: Any) -> Any:
    """Returns the stored bytes of a tensor, or another value unchanged; ValueError for a wrong shape or dtype."""
    if field.kind != "tensor" or isinstance(value, bytes):
        return value
    array = np.asarray(value)
    if array.shape != field.shape or array.dtype != field.numpy_dtype:
        expected = f"{field.dtype}{list(field.shape)}"
        raise ValueError(f"{field.name}: expected {expected}, got {array.dtype}{list(array.shape)}")
    return compress(np.ascontiguousarray(array).tobytes(), field.compression)


def _from_plain(field: Field, value: Any) -> Any:
    if field.kind != "tensor":
        return value
    data = decompress(value, field.compression, field.nbytes)
    return np.frombuffer(data, field.numpy_dtype).reshape(field.shape)


def stack_keys(rows: pa.Table | pa.RecordBatch) -> NDArray[np.uint8]:
    """Returns the column `key` of rows as uint8 [N, 32]."""
    return join_keys(rows["key"].to_pylist())


def join_keys(keys: Sequence[bytes]) -> NDArray[np.uint8]:
    """Returns keys as uint8 [N, 32]."""
    return np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES)
