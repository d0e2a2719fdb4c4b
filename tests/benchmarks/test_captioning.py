"""The captioning benchmark's two loops say the same, and what their model has learned."""

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
    lengths = list(map(len, benchmark("captioning").drawn_captions(2000, 20)))
    assert (min(lengths), max(lengths)) == (3, 19)
    assert sum(lengths) / len(lengths) == pytest.approx(10.8, abs=0.2)


@pytest.mark.slow
def test_ours_and_the_notebook_say_the_captions_that_were_learned(benchmark, tmp_path, monkeypatch):
    captioning, tables = benchmark("captioning"), benchmark("made_tables")
    monkeypatch.setattr(captioning, "VOCABULARY", 200)
    table = tables.feature_table(create_store(tmp_path / "store"), [str(number) for number in range(IMAGES)], SHAPE)
    captions = captioning.drawn_captions(IMAGES, MOST)
    model = captioning.taught(table, captions)
    learned = [captioning.told(words) for words in captions]
    assert captioning.ours(model, table, MOST)() == learned
    assert captioning.notebook(model, tables.save_arrays(tmp_path / "arrays", table), MOST)() == learned
