"""The benchmark of a growing directory extracts only new images, and reports their cost without start-up."""

import importlib
from pathlib import Path

import pytest

from features.store import open_store

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def incremental(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("incremental")


def test_the_fraction_is_relative_to_the_full_run_and_excludes_start_up(incremental):
    rates = {incremental.FULL: [1 / 50, 1 / 100], incremental.GROWN: [1 / 4, 1 / 5], incremental.ONE: [1 / 3, 1 / 3]}
    assert incremental.compute_fractions(rates) == pytest.approx([0.02, 0.02])


@pytest.mark.slow
def test_the_grown_run_extracts_only_the_new_images(incremental, tmp_path):
    folders = incremental.Folders.make(tmp_path, "float32", "mobilenet_v3_small", 9)
    works = folders.works()
    for _ in range(2):  # the second full run begins with the first folder again
        assert works[incremental.FULL]() > 0
        assert open_store(tmp_path / "filled").feature_tables()[0].rows == 1 + 9
        assert works[incremental.GROWN]() > 0
        assert open_store(tmp_path / "filled").feature_tables()[0].rows == 1 + 10
    assert works[incremental.ONE]() > 0
    assert open_store(tmp_path / "another").feature_tables()[0].rows == 1 + 1
