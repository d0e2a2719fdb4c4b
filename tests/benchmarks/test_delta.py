"""The benchmark of a folder that grows by 1 % extracts what is new, and tells its cost beyond start-up."""

import importlib
from pathlib import Path

import pytest

from features.store import open_store

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def delta(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("delta")


def test_the_share_is_of_the_full_run_and_leaves_start_up_out(delta):
    rates = {delta.FULL: [1 / 50, 1 / 100], delta.GROWN: [1 / 4, 1 / 5], delta.ONE: [1 / 3, 1 / 3]}
    assert delta.shares(rates) == pytest.approx([0.02, 0.02])


@pytest.mark.slow
def test_the_grown_run_extracts_the_new_images_alone(delta, tmp_path):
    folders = delta.Folders.make(tmp_path, "float32", "mobilenet_v3_small", 9)
    works = folders.works()
    for _ in range(2):  # the second full run begins with the first folder again
        assert works[delta.FULL]() > 0
        assert open_store(tmp_path / "filled").feature_tables()[0].rows == 1 + 9
        assert works[delta.GROWN]() > 0
        assert open_store(tmp_path / "filled").feature_tables()[0].rows == 1 + 10
    assert works[delta.ONE]() > 0
    assert open_store(tmp_path / "another").feature_tables()[0].rows == 1 + 1
