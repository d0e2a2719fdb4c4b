"""The test of train labels chooses the right language model for made labels; the benchmark counts its errors."""

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NAMES = (
    *("500 of 5 out of 36 characters", "8,000 of 3 to 7 out of 33 letters", "100 of 4 digits"),
    *("500 of 4 or 5 out of 26 letters, frequency 1/rank", "500 numbers that begin with 201 or 202"),
    *("1,000 of 4 out of 3,000 ideographs", "500 plates as AB-1234", "500 plates as AB-1234 or 1234-AB"),
    *("500 of 4 digits, none twice", "2,000 out of 5,000 words of 2 ideographs"),
    *("10,000 out of 50,000 words of 2 ideographs",),
    *("2,000 of 5 out of 36 characters, none twice", "500 dates as 310124", "100 English words", "300 English words"),
    *("2,000 English words", "500 out of 30 random labels"),
)


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("label_dependence")


def test_every_set_is_tested(benchmark):
    assert {one.name for one in benchmark.SETS} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_choice_is_right(benchmark, name):
    (label_set,) = [one for one in benchmark.SETS if one.name == name]
    assert benchmark.count_errors(label_set, 1) == 0
