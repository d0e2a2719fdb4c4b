"""The captioning benchmark's two loops generate the same captions, those that their model was trained on."""

import importlib
from pathlib import Path

import pytest

from features.store import create_store

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
IMAGES, MOST, SHAPE = 6, 12, (9, 64)


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def test_captions_are_as_long_as_they_may_be_and_end(benchmark):
    lengths = list(map(len, benchmark("captioning").draw_captions(2000, 20)))
    assert (min(lengths), max(lengths)) == (3, 19)
    assert sum(lengths) / len(lengths) == pytest.approx(10.8, abs=0.2)


@pytest.mark.slow
def test_ours_and_the_notebook_generate_the_training_captions(benchmark, tmp_path, monkeypatch):
    captioning, tables = benchmark("captioning"), benchmark("synthetic_tables")
    monkeypatch.setattr(captioning, "VOCABULARY", 200)
    table = tables.feature_table(create_store(tmp_path / "store"), [str(number) for number in range(IMAGES)], SHAPE)
    captions = captioning.draw_captions(IMAGES, MOST)
    model = captioning.overfit(table, captions)
    learned = [captioning.join_words(words) for words in captions]
    assert captioning.ours(model, table, MOST)() == learned
    assert captioning.notebook(model, tables.save_arrays(tmp_path / "arrays", table), MOST)() == learned
