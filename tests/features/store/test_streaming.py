"""Whole tables are read as Arrow, pandas, DuckDB, NumPy and tf.data in bounded memory."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.store import FeatureTable, open_store
from features.store.shards import tensor_fields
from features.store.storage_dtypes import decode
from schemas.compression import decompress
from schemas.tables import CAPTIONS, CATALOG
from tests.features.store.stores import (
    SHAPE,
    add_captions,
    add_dataset,
    add_features,
    expected_features,
    feature_config,
    key_of,
    keys_of,
    new_store,
)

DTYPES = ("float32", "float16", "bfloat16", "int8")
FORMATS = ("tfrecord", "parquet")
ROWS = 50


def by_key(numbers: Any) -> list[int]:
    return sorted(numbers, key=key_of)


def table_of(path: Path, table_config: Any) -> FeatureTable:
    """Fifty rows in three commits, ten of them twice."""
    store = new_store(path)
    add_features(store, table_config, range(30), shards=4)
    add_features(store, table_config, range(20, 40))
    add_features(store, table_config, range(40, ROWS), shards=2)
    return open_store(path).feature_table(table_config.fingerprint)


def as_numpy(table: FeatureTable, arrow: pa.Table) -> Any:
    """The features in an Arrow table, through the view that `to_arrow` documents."""
    columns = {
        field.name: np.frombuffer(arrow[field.name].combine_chunks().buffers()[1], field.numpy_dtype).reshape(
            -1, *field.shape
        )
        for field in tensor_fields(table.table)
    }
    return decode(columns)


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("file_format", FORMATS)
def test_arrow_tables_have_each_row_once_by_key(tmp_path: Path, file_format: Any, dtype: Any, compression: Any) -> None:
    table = table_of(tmp_path, feature_config(file_format, dtype, compression))
    arrow, numbers = table.to_arrow(), by_key(range(ROWS))
    assert arrow.schema.equals(feature_config(dtype=dtype).table(SHAPE).arrow_schema(), check_metadata=True)
    assert arrow["key"].to_pylist() == [key_of(number) for number in numbers]
    assert np.array_equal(as_numpy(table, arrow), expected_features(numbers, dtype))


def test_record_batches_have_the_requested_size(tmp_path: Path) -> None:
    table = table_of(tmp_path, feature_config())
    assert [batch.num_rows for batch in table.record_batches(16)] == [16, 16, 16, 2]
    assert pa.Table.from_batches(table.record_batches(7)).equals(table.to_arrow())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("file_format", FORMATS)
def test_a_table_is_read_as_tf_data(tmp_path: Path, file_format: Any, dtype: Any) -> None:
    table = table_of(tmp_path, feature_config(file_format, dtype))
    dataset, numbers = table.dataset(batch_size=16), by_key(range(ROWS))
    assert dataset.element_spec["value"].shape.as_list() == [None, *SHAPE]
    batches = list(dataset.as_numpy_iterator())
    assert [len(batch["key"]) for batch in batches] == [16, 16, 16, 2]
    assert [key for batch in batches for key in batch["key"]] == [key_of(number) for number in numbers]
    values = np.concatenate([batch["value"] for batch in batches])
    assert values.dtype == np.dtype("float32" if dtype == "int8" else values.dtype)
    assert np.array_equal(values, expected_features(numbers, dtype))
    assert len(list(dataset)) == 4


def test_an_empty_table_can_be_read(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    add_features(store, feature_config(), [])
    (table,) = store.feature_tables()
    assert table.to_arrow().num_rows == 0
    assert list(table.dataset()) == []
    assert (table.lookup(keys_of([1])) == -1).all()


def test_the_parquet_shards_open_in_pandas_and_duckdb_with_the_documented_columns(tmp_path: Path) -> None:
    table = table_of(tmp_path, feature_config("parquet", "int8"))
    paths = [str(table.root / shard.data.path) for shard in table.shards]
    frame = pd.concat([pd.read_parquet(path) for path in paths])
    assert list(frame.columns) == [field.name for field in table.table.fields] == ["key", "value", "scale"]
    assert set(map(len, frame["value"])) == {int(np.prod(SHAPE))}
    described = duckdb.sql(f"DESCRIBE SELECT * FROM read_parquet({paths})").fetchall()
    assert [(name, kind) for name, kind, *_ in described] == [("key", "BLOB"), ("value", "BLOB"), ("scale", "BLOB")]
    rows = duckdb.sql(
        f"SELECT key, first(value), first(scale) FROM read_parquet({paths}) GROUP BY key ORDER BY key"
    ).fetchall()
    assert [key for key, _, _ in rows] == [key_of(number) for number in by_key(range(ROWS))]
    values = np.frombuffer(b"".join(value for _, value, _ in rows), np.int8).reshape(-1, *SHAPE)
    scales = np.frombuffer(b"".join(scale for _, _, scale in rows), np.float32).reshape(-1, SHAPE[0], 1)
    assert np.array_equal(values * scales, expected_features(by_key(range(ROWS)), "int8"))


def test_a_parquet_shard_is_a_numpy_view(tmp_path: Path) -> None:
    table = table_of(tmp_path, feature_config("parquet", "float16"))
    shard = table.shards[0]
    arrow = pq.read_table(table.root / shard.data.path)
    values = np.frombuffer(arrow["value"].combine_chunks().buffers()[1], np.float16).reshape(-1, *SHAPE)
    assert np.array_equal(values, table.read(np.arange(shard.rows)))


def test_compressed_values_are_plain_zstd_frames(tmp_path: Path) -> None:
    table = table_of(tmp_path, feature_config("parquet", "float16", "zstd"))
    path = str(table.root / table.shards[0].data.path)
    key, frame = duckdb.sql(f"SELECT key, value FROM '{path}' LIMIT 1").fetchall()[0]
    value = np.frombuffer(decompress(frame, "zstd", 2 * int(np.prod(SHAPE))), np.float16).reshape(SHAPE)
    assert np.array_equal(value, table.get(key))


def test_captions_and_catalogs_are_read_as_arrow_and_tf_data(tmp_path: Path) -> None:
    store = new_store(tmp_path)
    add_dataset(store, "some", range(ROWS))
    add_captions(store, "some", range(ROWS))
    text, dataset = store.caption_tables()[0], store.dataset("some")
    numbers = by_key(range(ROWS))
    assert text.captions().schema.equals(CAPTIONS.arrow_schema())
    assert text.captions()["caption"].to_pylist() == [f"caption {number}" for number in numbers]
    assert [batch.num_rows for batch in text.record_batches(20)] == [20, 20, 10]
    assert pa.Table.from_batches(text.record_batches(20)).equals(text.captions())
    assert pa.Table.from_batches(dataset.record_batches(20), CATALOG.arrow_schema()).equals(dataset.catalog())
    batches = list(text.dataset(batch_size=20))
    assert [tokens for batch in batches for tokens in batch["tokens"].to_list()] == [[2, 4 + n, 3] for n in numbers]
    assert [key for batch in batches for key in batch["key"].numpy()] == [key_of(number) for number in numbers]
    sizes = [size for batch in dataset.dataset(batch_size=20) for size in batch["bytes"].numpy()]
    assert sizes == dataset.catalog()["bytes"].to_pylist()


_PEAK = """
import resource, sys
import numpy as np
from features.store import open_store
table = open_store(sys.argv[1]).feature_tables()[0]
next(table.record_batches(16))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
rows = sum(batch.num_rows for batch in table.record_batches(16))
print(rows, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
assert "tensorflow" not in sys.modules
"""


def test_streaming_needs_memory_for_one_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.features.store.stores.SHAPE", (64, 512))
    store, table_config = new_store(tmp_path), feature_config()
    add_features(store, table_config, range(1500), shards=4)
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    rows, grown = map(int, done.stdout.split())
    assert rows == 1500
    assert grown < 1500 * 64 * 512 * 2 / 4
