"""A YAML file that is not what it seems is wrong usage, in one line, whatever command reads it."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

import capt
from schemas.errors import UsageError
from schemas.frozen import Settings
from schemas.options.prepare import PrepareFeatures
from schemas.yaml_file import MAX_BYTES, read_settings
from tests.conftest import noise_image
from trainer.config import CaptionerTraining
from trainer.models.configs import NicConfig
from workflows.experiments.config import read_experiment_config
from workflows.experiments.planning import build_grid, identify_trial

WRONG = {
    "nested deeply": b"a: " + b"[" * 3000 + b"]" * 3000,
    "a key twice": b"a: 1\nb: 2\na: 3\n",
    "a nested key twice": b"a:\n  b: 1\n  b: 2\n",
    "aliases": b"a: &a [1, 2]\nb: [*a, *a]\n",
    "not UTF-8": b"a: \xff\n",
    "a NUL byte": b"a: \0\n",
    "a tab": b"a:\n\tb: 1\n",
    "too large": b"a: " + b"x" * MAX_BYTES,
    "a list": b"- a\n",
    "an impossible date": b"a: 2020-13-45\n",
}


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("read", [read_settings, capt.retrain, capt.experiment_run])
def test_a_wrong_file_is_wrong_usage(tmp_path: Path, content: bytes, read: object) -> None:
    path = tmp_path / "file.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read(str(path))  # type: ignore[operator]
    assert "\n" not in str(caught.value)


def test_equal_keys_of_different_mappings_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("a: {x: 1}\nb: [{x: 2}, {x: 3}]\nx: 4\n")
    assert read_settings(path) == {"a": {"x": 1}, "b": [{"x": 2}, {"x": 3}], "x": 4}


@pytest.mark.parametrize(
    "line",
    [
        "limit_images: 5\nlimit-images: 7",
        "limit-images: yes",
        "seed: true",
        "dataset_name: no",
        "split_ratios: off",
        "weights: on",
        "config: other.yaml",
    ],
)
def test_an_entry_that_would_be_ignored_or_read_as_something_else_is_wrong_usage(tmp_path: Path, line: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(f"store: {tmp_path / 'store'}\ndataset_type: folder\n{line}\n")
    done = CliRunner().invoke(
        capt.application(), ["prepare", "features", "--images", str(tmp_path), "--config", str(path)]
    )
    assert done.exit_code == 2
    assert not (tmp_path / "store").exists()


EMPTY: dict[str, tuple[Any, dict[str, Any]]] = {
    "a store": (capt.prepare_features, {"store": "", "dataset_type": "folder", "images": ["."]}),
    "a name": (
        capt.prepare_features,
        {"store": "store", "dataset_type": "folder", "images": ["."], "dataset_name": ""},
    ),
    "an image": (capt.prepare_features, {"store": "store", "dataset_type": "folder", "images": [".", ""]}),
    "weights": (capt.prepare_features, {"store": "store", "dataset_type": "folder", "images": ["."], "weights": ""}),
    "a vocabulary": (
        capt.prepare_captions,
        {"store": "store", "dataset_type": "csv", "annotations": ["a"], "vocab_from": ""},
    ),
    "a run to begin with": (capt.train_captioner, {"store": "store", "run_dir": "run", "warm_start_from": ""}),
    "a run directory": (capt.train_captioner, {"store": "store", "run_dir": ""}),
    "labels": (capt.evaluate, {"runs": ["run"], "labels": ""}),
    "the store of a run": (capt.evaluate, {"runs": ["run"], "store": ""}),
}


@pytest.mark.parametrize(("command", "arguments"), EMPTY.values(), ids=EMPTY.keys())
def test_an_empty_value_is_not_a_missing_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Any, arguments: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError):
        command(**arguments)
    assert list(tmp_path.iterdir()) == []


EXPERIMENT = """
store: store
output_dir: out
data: {dataset_type: csv, images: photos, annotations: c.csv}
features: {pixels: {extractor: pixels, height: 8, width: 8}}
captions: {words: {}}
models: {nic: {extractor: "custom:own.keras", epochs: 1}}
"""
RETRAINING = """
store: store
name: mine
data: [{dataset_type: csv, images: photos, annotations: c.csv}]
features: {extractor: pixels, height: 8, width: 8}
train: {model: nic, epochs: 1}
"""
BATCHES = "batch-size: 2, batch_size: 3"
LIMITS = "limit-images: 2, limit_images: 3"
DOUBLED: dict[str, tuple[Any, str, str, str]] = {
    "a model of an experiment": (capt.experiment_run, EXPERIMENT, "epochs: 1", BATCHES),
    "a table of an experiment": (capt.experiment_run, EXPERIMENT, "width: 8", f"width: 8, {BATCHES}"),
    "the data of an experiment": (capt.experiment_run, EXPERIMENT, "dataset_type: csv", f"dataset_type: csv, {LIMITS}"),
    "the store of a table": (capt.experiment_run, EXPERIMENT, "width: 8", "width: 8, store: other"),
    "the plan of a table": (capt.experiment_run, EXPERIMENT, "{words: {}}", "{words: {dry_run: true}}"),
    "the data of a retraining": (capt.retrain, RETRAINING, "dataset_type: csv", f"dataset_type: csv, {LIMITS}"),
    "the features of a retraining": (capt.retrain, RETRAINING, "width: 8", f"width: 8, {BATCHES}"),
    "the training of a retraining": (capt.retrain, RETRAINING, "epochs: 1", f"epochs: 1, {BATCHES}"),
    "the store of the data": (capt.retrain, RETRAINING, "dataset_type: csv", "dataset_type: csv, store: other"),
    "the plan of the data": (capt.retrain, RETRAINING, "dataset_type: csv", "dataset_type: csv, dry_run: true"),
}


@pytest.mark.parametrize(("command", "content", "old", "new"), DOUBLED.values(), ids=DOUBLED.keys())
def test_an_option_that_would_be_ignored_is_wrong_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Any, content: str, old: str, new: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file.yaml"
    assert content.count(old) == 1
    path.write_text(content.replace(old, new))
    with pytest.raises(UsageError) as caught:
        command(file=path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "store").exists()


def test_a_trial_is_another_when_a_file_changes_that_its_options_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    noise_image(1).save("photos/a.png")
    Path("c.csv").write_text("image,caption,split\na.png,some words,train\n")
    Path("file.yaml").write_text(EXPERIMENT)
    tables = {
        "features": capt.prepare_features(
            store="store",
            dataset_type="csv",
            images=["photos"],
            annotations=["c.csv"],
            extractor="pixels",
            height=8,
            width=8,
        ),
        "captions": capt.prepare_captions(store="store", dataset_type="csv", annotations=["c.csv"]),
    }
    definition = read_experiment_config("file.yaml")
    (trial,) = build_grid(definition, "file.yaml").trials
    fingerprints = {key: tables[key.kind]["fingerprint"] for key in trial.trained_tables}

    def identity() -> str:
        return identify_trial(definition, trial, fingerprints, capt.open_store("store"))

    Path("own.keras").write_bytes(b"one network")
    one = identity()
    assert identity() == one
    trial.options.update({"keep-epochs": 3, "plot_from_zero": True, "sample_images": ["own.keras"]})
    assert identity() == one, "options without effect on weights and scores"
    trial.options["num_validation_images"] = 1
    assert identity() != one, "another epoch may be the best one"
    del trial.options["num_validation_images"]
    Path("own.keras").write_bytes(b"another network")
    assert identity() != one


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (CaptionerTraining, "batch_size"),
        (CaptionerTraining, "global_clipnorm"),
        (NicConfig, "units"),
        (NicConfig, "dropout"),
        (PrepareFeatures, "limit_images"),
        (PrepareFeatures, "batch_size"),
        (PrepareFeatures, "seed"),
    ],
)
def test_true_is_not_the_number_one(config: type[Settings], name: str) -> None:
    with pytest.raises(ValidationError) as caught:
        config(**{name: True})
    assert name in [one["loc"][0] for one in caught.value.errors()]
