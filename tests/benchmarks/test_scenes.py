"""The scenes benchmark runs from scenes to its table."""

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def program(monkeypatch):
    """Imports a module of the benchmarks."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def test_each_model_has_valid_committed_hyperparameters(program):
    from trainer.config import parse_options
    from trainer.models.model_specs import MODELS

    benchmark = program("scenes")
    for name, spec in MODELS.items():
        parse_options(spec.config, benchmark.load_options(name))


@pytest.mark.slow
def test_the_benchmark_runs_from_scenes_to_its_table_and_reuses_results(program, tmp_path):
    benchmark = program("scenes")
    bench = benchmark.Bench(tmp_path / "out", scenes=50, network_scenes=20, network_epochs=1)
    sizes = {
        "soft_attention": {"embedding_dim": 8, "units": 8, "attention_dim": 8, "projection_dim": 8, "output_dim": 8},
        "par_inject": {"embedding_dim": 8, "units": 8},
    }
    options = {
        name: {**chosen, "epochs": 1, "batch_size": 16, "num_sample_captions": 0} for name, chosen in sizes.items()
    }
    figures = benchmark.measure(bench, list(options), options.__getitem__)
    for name, one in figures["models"].items():
        assert (one["scenes"], one["unseen_scenes"]) == (8, 2)
        assert 0 <= one["true"] <= 1
        assert set(one["true_of_objects"]) == {2, 3}
        assert sum(one["faults"].values()) == round((1 - one["true"]) * 8)
        assert set(one["shuffled"]) >= {"true", "bleu_4", "cider_d"}
        assert one["training"]["cpu_seconds"] > 0
        assert f"| `{name}` |" in benchmark.table(figures)
    stamps = {path: path.stat().st_mtime_ns for path in bench.out.glob("runs/*/checkpoints/*")}
    again = benchmark.measure(bench, list(options), options.__getitem__)
    assert {path: path.stat().st_mtime_ns for path in bench.out.glob("runs/*/checkpoints/*")} == stamps
    assert again["models"]["par_inject"]["faults"] == figures["models"]["par_inject"]["faults"]
