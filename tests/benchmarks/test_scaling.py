"""The benchmark of scaling measures whole runs, each in a process of its own, by one worker and by two."""

import importlib
from pathlib import Path

import pytest

from features.store import open_store

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
def test_every_run_extracts_all_of_its_images(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    scaling = importlib.import_module("scaling")
    runs = scaling.make(tmp_path, "float32", "mobilenet_v3_small", 2)
    assert [(run.count, run.workers) for run in runs] == [(2, 1), (8, 1), (32, 1), (2, 2), (8, 2), (32, 2)]
    for run in (runs[0], runs[-1]):
        assert run() > 0
        assert run.peaks[0] > 200 * 2**20
        (grown,) = open_store(tmp_path / "grown").feature_tables()
        assert grown.rows == 1 + run.count
