"""The benchmark of a training step measures the whole step and every part of it."""

import importlib
from pathlib import Path

import pytest

SMALL = (*("--filters", "4,4,8", "--height", "16", "--width", "48"), *("--rounds", "1", "--steps", "1"))
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("recognizer_step")


@pytest.mark.slow
def test_the_parts_of_a_step_are_measured(benchmark, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["recognizer_step.py", *SMALL])
    for kind in ("intra", "inter"):
        monkeypatch.setattr(benchmark.tf.config.threading, f"set_{kind}_op_parallelism_threads", lambda number: None)
    benchmark.main()
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    names = [row[0].strip("| ") for row in rows[1:]]
    assert names[:2] == ["whole step, `words`", "whole step, `none`"]
    assert {"stage 1", "stage 3", "GRU", "CTC loss", "augmentation"} <= set(names)


@pytest.mark.slow
def test_operations_are_those_of_the_convolutions(benchmark):
    training, _ = benchmark.parse_recognizer("default", {"precision": "float32", "epochs": 1})
    flops = benchmark.count_stage_flops(benchmark.build("none", (4, 4, 8), (16, 48), training), (16, 48))
    # Stages have 0, 1 and 2 residual blocks of two convolutions each.
    assert flops["stage 1"] == 2 * 8 * 24 * 9 * 3 * 4
    assert flops["stage 2"] == 2 * 4 * 12 * 9 * (4 * 4 + 2 * 4 * 4)
    assert flops["stage 3"] == 2 * 2 * 6 * 9 * (4 * 8 + 4 * 8 * 8)
