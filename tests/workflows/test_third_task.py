"""A third task needs one module and two registry entries to be trained, evaluated, compared and retrained."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import capt
from tests.workflows.mean_color import COLORS
from trainer.runs.run import load_run
from trainer.task_registry import TASKS
from workflows.prepared_tasks import PREPARATIONS, evaluate_run, find_prepared_task

RGB = {"blue": (30, 40, 220), "green": (20, 150, 40), "red": (210, 20, 30)}
HYPERPARAMETERS = {"epochs": 3, "batch_size": 8, "learning_rate": 0.5}


@pytest.fixture(autouse=True)
def third_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "mean_color", "tests.workflows.mean_color:MeanColorTask")
    monkeypatch.setitem(PREPARATIONS, "mean_color", PREPARATIONS["captcha"])


@pytest.fixture
def data(tmp_path: Path) -> dict[str, Any]:
    """Returns the options that prepare 42 images of one color each."""
    directory = tmp_path / "images"
    directory.mkdir()
    names = [COLORS[number % 3] for number in range(42)]
    for number, name in enumerate(names):
        noise = np.random.default_rng(number).integers(-15, 16, (12, 16, 3))
        pixels = np.clip(np.array(RGB[name]) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(directory / f"a{number}.png")
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"a{number} {name}\n" for number, name in enumerate(names)))
    return {"dataset_name": "colors", "images": str(directory), "labels": str(labels)}


def write_yaml(path: Path, entries: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump(entries))
    return str(path)


def test_it_is_trained_and_evaluated(tmp_path: Path, data: dict[str, Any]) -> None:
    task, store = find_prepared_task("mean_color"), tmp_path / "store"
    table = task.preparations["features"].prepare(store, {**data, "height": 12, "width": 16})["fingerprint"]
    result = task.train(store, tmp_path / "run", HYPERPARAMETERS, {"features": table})
    assert result["val_exact_match"] == 1
    run = load_run(tmp_path / "run")
    assert run.task.name == "mean_color"
    evaluated = evaluate_run(store, run.path, {})
    assert task.task.read_scores(evaluated)["exact_match"].value == 1
    assert evaluated["images"] == 6


def test_its_runs_are_compared_in_an_experiment(tmp_path: Path, data: dict[str, Any]) -> None:
    entries = {
        "task": "mean_color",
        "store": str(tmp_path / "store"),
        "output_dir": str(tmp_path / "out"),
        "data": data,
        "captcha": {"pixels": {"height": 12, "width": 16}},
        "models": {"fast": HYPERPARAMETERS, "slow": {**HYPERPARAMETERS, "learning_rate": 0.001}},
    }
    result = capt.experiment_run(file=write_yaml(tmp_path / "experiment.yaml", entries))
    scores = {trial["trial"].partition("-")[0]: trial["scores"]["exact_match"] for trial in result["trials"]}
    assert scores["fast"] == 1 >= scores["slow"]
    report = capt.experiment_report(directory=str(tmp_path / "out"))
    assert report


def test_its_challenger_is_promoted(tmp_path: Path, data: dict[str, Any]) -> None:
    entries = {
        "task": "mean_color",
        "store": str(tmp_path / "store"),
        "name": "colors",
        "data": [data],
        "features": {"height": 12, "width": 16},
        "train": HYPERPARAMETERS,
    }
    result = capt.retrain(file=write_yaml(tmp_path / "retrain.yaml", entries))
    assert result["decision"] == "promoted"
    assert load_run(tmp_path / "store" / "models" / "colors").task.name == "mean_color"
    assert capt.retrain(file=str(tmp_path / "retrain.yaml"))["decision"] == "no_change"
