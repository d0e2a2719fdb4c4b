"""The committed experiments have the trials of their questions, and their values are compared in pairs."""

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml

import capt
from schemas.errors import StoreError
from workflows.experiments.config import parse_experiment_config
from workflows.experiments.planning import build_grid

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
EXPERIMENTS = BENCHMARKS / "experiments"
TRIALS = {
    "flickr8k_feed": ["once-pooled-words", "every-pooled-words"],
    "flickr8k_cells": ["lstm-pooled-words", "gru-pooled-words", "gru_wide-pooled-words"],
    "flickr8k_attention": ["soft-spatial-words", "hard-spatial-words"],
    "flickr8k_networks": ["init_inject-lite0-words", "init_inject-lite2-words"],
    "scenes_datasets": [f"soft_attention-{dataset}-spatial-words" for dataset in ("two", "three", "both")],
}
SMALL = {"epochs": 1, "embedding_dim": 8, "units": 8}


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("comparisons")


def read_entries(name: str) -> dict[str, Any]:
    entries: dict[str, Any] = yaml.safe_load((EXPERIMENTS / f"{name}.yaml").read_text(encoding="utf-8"))
    return entries


def test_every_committed_experiment_is_known() -> None:
    assert {path.stem for path in EXPERIMENTS.glob("*.yaml")} == set(TRIALS)


@pytest.mark.parametrize("name", TRIALS)
def test_a_committed_experiment_has_the_trials_of_its_question(name: str) -> None:
    config = parse_experiment_config(read_entries(name), name)
    expected = [f"{trial}-seed{seed}" for trial in TRIALS[name] for seed in config.seeds]
    assert [trial.name for trial in build_grid(config, name).trials] == expected
    assert len(config.seeds) > 1
    assert not Path(config.store).is_absolute()


def test_models_of_a_comparison_differ_only_in_what_is_compared() -> None:
    expected = {
        "flickr8k_feed": {"feed"},
        "flickr8k_cells": {"rnn_cell", "units"},
        "flickr8k_attention": {"model", "discount", "reinforce_weight", "entropy_weight"},
    }
    for name, differing in expected.items():
        config = parse_experiment_config(read_entries(name), name)
        settings = [config.training_task.settings(config.training_options(model, 0)) for model in config.models]
        assert {
            key for one in settings for key in one if len({str(each.get(key)) for each in settings}) > 1
        } == differing


def test_a_mix_has_the_vocabulary_of_the_dataset_with_more_words() -> None:
    config = parse_experiment_config(read_entries("scenes_datasets"), "scenes_datasets")
    assert config.training_datasets("both")[0] == "three"


def test_pairs_are_resampled_together_with_images(program: ModuleType) -> None:
    assert program.resample(np.full((3, 50), 0.2)) == pytest.approx((0.2, 0.2))
    low, high = program.resample(np.random.default_rng(0).normal(0.5, 1.0, (2, 400)))
    assert low < 0.5 < high
    # Seeds that disagree widen the interval, however many images there are.
    low, high = program.resample(np.array([[-1.0] * 400, [1.0] * 400]))
    assert (low, high) == pytest.approx((-1.0, 1.0))


def test_a_directory_without_an_experiment_is_refused(program: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no finished trial"):
        program.read_trials(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flickr8k_feed", "flickr8k_networks", "flickr8k_attention", "scenes_datasets"])
def test_a_committed_experiment_runs_at_a_small_size_on_scenes(
    program: ModuleType, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nothing")  # METEOR takes seconds to start
    for scenes, objects in (("scenes_two", "2"), ("scenes_three", "3")):
        capt.synth_scenes(out=scenes, num_images=24, seed=int(objects), objects_per_scene=objects)
    entries = read_entries(name)
    if "datasets" not in entries:
        entries["data"] = {
            **read_entries("scenes_datasets")["data"],
            **read_entries("scenes_datasets")["datasets"]["two"],
        }
        entries["captions"] = {"words": {}}
    network = {"extractor": "mobilenet_v3_small", "weights": "random:7", "height": 64, "width": 64}
    for number, (table, options) in enumerate(entries["features"].items()):
        entries["features"][table] = {
            **network,
            "weights": f"random:{number}",
            "pooling": options.get("pooling", "none"),
        }
    entries["train"] |= SMALL
    entries["models"] = {model: {**(options or {}), **SMALL} for model, options in entries["models"].items()}
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump(entries, sort_keys=False))
    result = capt.experiment_run(file=str(file))
    assert result["done"] == len(result["trials"])

    axis = {"flickr8k_networks": "features", "scenes_datasets": "dataset"}.get(name, "model")
    monkeypatch.setattr("sys.argv", ["comparisons.py", entries["output_dir"], "--axis", axis, "--json"])
    program.main()
    compared = json.loads(capsys.readouterr().out.splitlines()[-1])
    rows = compared["all"]
    assert [row["trials"] for row in rows] == [len(entries["seeds"])] * len(rows)
    assert rows[0]["difference"] is None
    assert all(row["pairs"] == len(entries["seeds"]) for row in rows[1:])
    assert set(compared) == {"trials", "all", *(("two", "three") if name == "scenes_datasets" else ())}
    assert [row["trial"] for row in compared["trials"]] == [one["trial"] for one in result["trials"]]
    assert all(row["val_loss"] > 0 and row["different_captions"] > 0 for row in compared["trials"])
    with pytest.raises(StoreError, match="no axis 'colour'"):
        program.compare(program.read_trials(Path(entries["output_dir"])), "colour")
