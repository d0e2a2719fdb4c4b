"""The reading benchmark's readers all give every image of a table, and the same values."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from features.store import create_store

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SHAPE, ROWS, BATCH = (6, 16), 37, 8


@pytest.fixture
def reading(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("reading")


@pytest.fixture
def table(reading, tmp_path):
    return reading.feature_table(create_store(tmp_path / "store"), [str(number) for number in range(ROWS)], SHAPE)


def test_every_reader_reads_every_row(reading, table, tmp_path):
    captions, arrays = reading.one_caption_each(table), reading.save_arrays(tmp_path / "arrays", table)
    passes = reading.PASSES * ROWS
    assert reading.random(table, BATCH)() == ROWS
    assert reading.streamed(table, BATCH)() == ROWS
    assert reading.tensorflow_alone(table, BATCH)() == ROWS
    assert reading.training(table, captions, BATCH)() == passes
    assert reading.notebook(arrays, BATCH)() == ROWS
    assert [reading.readinto(table, BATCH, threads)() for threads in (1, 2)] == [passes, passes]


def test_training_and_the_notebook_read_the_same_values(reading, table, tmp_path):
    captions, arrays = reading.one_caption_each(table), reading.save_arrays(tmp_path / "arrays", table)
    order = reading.shuffle_captions(captions, BATCH, 0, 0)
    ours = [inputs["features"].numpy() for inputs, _ in reading.BatchReader(captions, table).dataset(order, BATCH)]
    theirs = [features.numpy() for features, _ in reading.reader(arrays, np.zeros((ROWS, 2), np.int32), BATCH)]
    found = [np.concatenate(batches).astype(np.float32).reshape(ROWS, -1) for batches in (ours, theirs)]
    for one, other in zip(*(sorted(values.tolist()) for values in found), strict=True):
        assert one == other


def test_the_limit_reads_the_very_bytes_of_the_values(reading, table):
    first = {path: path.read_bytes() for path, _ in reading.locate_rows(table)}
    keys = np.concatenate(list(table.key_blocks()))
    for key, (path, offset) in zip(keys, reading.locate_rows(table), strict=True):
        value = table.get(key.tobytes())
        assert first[path][offset : offset + value.nbytes] == value.tobytes()
