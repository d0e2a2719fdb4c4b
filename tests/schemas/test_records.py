"""Rows round-trip through both formats, and derived specs parse them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.core.example import example_pb2

from schemas.example_encoding import decode_example, encode_example
from schemas.records import build_parsing_spec, from_arrow, from_example, to_arrow, to_example
from schemas.tables import CAPTIONS, CATALOG, FAILURES, REPORT, Field, Table, features_table

TABLES = [CAPTIONS, CATALOG, FAILURES, REPORT] + [
    features_table(shape, dtype)
    for shape in ((3, 5), (7,))
    for dtype in ("float32", "float16", "bfloat16", "int8", "uint8")
]


def values(field: Field) -> st.SearchStrategy[Any]:
    if field.kind == "bytes":
        return st.binary(min_size=field.size, max_size=field.size or 40)
    if field.kind == "text":
        return st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    integers = st.integers(-(2**63), 2**63 - 1)
    if field.kind == "int":
        return integers
    if field.kind == "ints":
        return st.lists(integers, max_size=6)
    bytes_ = st.binary(min_size=field.nbytes, max_size=field.nbytes)
    return bytes_.map(lambda data: np.frombuffer(data, field.numpy_dtype).reshape(field.shape))


def rows(table: Table) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({field.name: values(field) for field in table.fields})


def same(table: Table, one: dict[str, Any], other: dict[str, Any]) -> bool:
    def bits(field: Field, value: Any) -> Any:
        return value.tobytes() if field.kind == "tensor" else value

    return all(bits(field, one[field.name]) == bits(field, other[field.name]) for field in table.fields)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: f"{table.name}-{len(table.fields)}")
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_row_round_trips_through_an_example(table: Table, data: st.DataObject) -> None:
    row = data.draw(rows(table))
    assert same(table, from_example(table, to_example(table, row)), row)
    assert to_example(table, dict(reversed(row.items()))) == to_example(table, row)


FEATURES = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=3),
    st.binary(max_size=300) | st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20),
    max_size=5,
)


def make_example(features: dict[str, Any]) -> Any:
    example = example_pb2.Example()
    for name, value in features.items():
        if isinstance(value, bytes):
            example.features.feature[name].bytes_list.value.append(value)
        else:
            example.features.feature[name].int64_list.value.extend(value)
    return example


@settings(max_examples=100, deadline=None)
@given(features=FEATURES)
def test_examples_of_tensorflow_are_decoded(features: dict[str, Any]) -> None:
    decoded = decode_example(make_example(features).SerializeToString())
    assert decoded == {name: [value] if isinstance(value, bytes) else value for name, value in features.items()}


@settings(max_examples=100, deadline=None)
@given(features=FEATURES, data=st.data())
def test_bytes_that_are_no_example_are_refused(features: dict[str, Any], data: st.DataObject) -> None:
    """Any change of the bytes is refused with ValueError, or is another example of bytes and integers."""
    encoded = bytearray(encode_example(features))
    for position in data.draw(st.lists(st.integers(0, len(encoded) - 1), min_size=1, max_size=3)):
        encoded[position] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_example(bytes(encoded[: data.draw(st.integers(1, len(encoded)))]))
    except ValueError:
        return
    assert {type(value) for values in decoded.values() for value in values} <= {bytes, int}


@settings(max_examples=100, deadline=None)
@given(features=FEATURES)
def test_examples_are_encoded_in_the_bytes_of_tensorflow(features: dict[str, Any]) -> None:
    example = make_example(features)
    # TensorFlow omits the message of all features if there are none; a table has at least a key.
    expected = example.SerializeToString(deterministic=True) if features else encode_example({})
    assert encode_example(features) == expected


@pytest.mark.parametrize("table", TABLES, ids=lambda table: f"{table.name}-{len(table.fields)}")
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_any_rows_round_trip_through_parquet(table: Table, data: st.DataObject, tmp_path_factory: Any) -> None:
    many = data.draw(st.lists(rows(table), max_size=3))
    path: Path = tmp_path_factory.mktemp("parquet") / "rows.parquet"
    pq.write_table(to_arrow(table, many), path)
    back = from_arrow(table, pq.read_table(path))
    assert len(back) == len(many)
    assert all(same(table, one, other) for one, other in zip(back, many, strict=True))


@settings(max_examples=15, deadline=None)
@given(row=rows(CAPTIONS))
def test_tensorflow_parses_captions_with_the_derived_spec(row: dict[str, Any]) -> None:
    parsed = tf.io.parse_single_example(to_example(CAPTIONS, row), build_parsing_spec(CAPTIONS))
    assert parsed["tokens"].numpy().tolist() == row["tokens"]
    assert parsed["caption"].numpy().decode() == row["caption"]


def test_tensorflow_parses_features_with_the_derived_spec() -> None:
    table = features_table((2, 3), "float16")
    value = np.arange(6, dtype=np.float16).reshape(2, 3)
    parsed = tf.io.parse_single_example(
        to_example(table, {"key": bytes(32), "value": value}), build_parsing_spec(table)
    )
    assert np.array_equal(tf.io.decode_raw(parsed["value"], tf.float16).numpy().reshape(2, 3), value)


def test_a_tensor_of_another_shape_or_dtype_is_refused() -> None:
    table = features_table((2, 3), "float16")
    for value in (np.zeros((3, 2), np.float16), np.zeros((2, 3), np.float32)):
        with pytest.raises(ValueError, match="expected float16"):
            to_example(table, {"key": bytes(32), "value": value})


def test_the_documentation_has_every_column_with_its_type() -> None:
    text = features_table((64, 2048), "int8").doc_table()
    assert "| `key` | bytes[32] |" in text
    assert "int8[64, 2048]" in text
    assert "float32[64]" in text
