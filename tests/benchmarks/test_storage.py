"""The storage benchmark counts what is on disk."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from features.store import create_store

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SHAPE, ROWS = (8, 512), 11


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("float16", 2), ("int8", 1)])
def test_a_table_takes_its_values_and_little_more(benchmark, tmp_path, dtype, size):
    table = benchmark("synthetic_tables").feature_table(
        create_store(tmp_path), [str(i) for i in range(ROWS)], SHAPE, dtype
    )
    values = size * SHAPE[0] * SHAPE[1]
    assert values < benchmark("storage").bytes_per_image(table) < 1.1 * values


def test_a_saved_dataset_has_every_image_s_features_with_each_of_its_captions(benchmark, tmp_path):
    storage = benchmark("storage")
    table = benchmark("synthetic_tables").feature_table(
        create_store(tmp_path / "store"), [str(i) for i in range(ROWS)], SHAPE
    )
    size = storage.saved(table, tmp_path / "saved")
    assert 1 < size / (storage.CAPTIONS_PER_IMAGE * 4 * SHAPE[0] * SHAPE[1]) < 1.1
    rows = [features.numpy() for features, _ in tf.data.Dataset.load(str(tmp_path / "saved"))]
    expected = table.get_many(np.concatenate(list(table.key_blocks()))).astype(np.float32)
    np.testing.assert_array_equal(rows, expected.repeat(storage.CAPTIONS_PER_IMAGE, axis=0))
