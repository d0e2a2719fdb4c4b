"""An experiment's file is taken as it is meant, or refused in one line that says what is wrong, and where."""

from pathlib import Path
from typing import Any

import pytest

from schemas.errors import UsageError
from tests.workflows.experiments.files import captions_experiment, put
from workflows.experiments.config import parse_experiment_config, read_experiment_config


@pytest.fixture
def entries(tmp_path: Path) -> dict[str, Any]:
    return captions_experiment(tmp_path, tmp_path / "images", tmp_path / "captions.json")


def test_options_reach_the_job_that_they_are_for(entries: dict[str, Any]) -> None:
    entries["captions"] = {"few": {"vocab-size": 30}}
    entries["models"] = {"merge": {"units": 9}, "own": {"model": "nic"}}
    entries["train"] = {"epochs": 5, "units": 7}
    definition = parse_experiment_config(entries, "file")
    assert definition.dataset == "coco"
    assert "images" not in definition.preparing("captions", "few")
    assert definition.preparing("captions", "few")["vocab_size"] == 30
    assert definition.preparing("features", "pooled")["images"] == entries["prepare"]["images"]
    assert definition.training("merge", 3) == {"model": "merge", "epochs": 5, "units": 9, "seed": 3}
    assert definition.training("own", 0)["model"] == "nic"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modles": {}}, r"^file: unknown key 'modles' \(known: task, store"),
        ({"task": "speech"}, r"^file: task: .*captioner.*got 'speech'"),
        ({"store": None}, "^file: store: "),
        ({"models": {}}, "^file: models: "),
        ({"features": {}}, r"^file: features names no table \(add `features:`"),
        ({"captcha": {"x": {}}}, "^file: captcha is not for the task captioner"),
        ({"task": "captcha"}, "^file: features is not for the task captcha"),
        ({"features": {"a/b": {}}}, "^file: 'a/b' cannot name a features"),
        ({"features": {"x": {"pooler": "avg"}}}, "^file: features.x: prepare features: unknown option 'pooler'"),
        ({"features": {"x": {"pooling": "sum"}}}, "^file: features.x: prepare features: --pooling: "),
        ({"features": {"x": {"limit-images": 5}}}, "^file: features.x: limit_images is the same for all tables"),
        (
            {"prepare": {"dataset_type": "coco", "pooling": "avg"}},
            "^file: prepare: pooling decides what rows mean .*`features",
        ),
        ({"prepare": {"dataset_type": "coco", "imags": "x"}}, "^file: prepare: unknown option 'imags'"),
        ({"models": {"merge": {"unit": 3}}}, "^file: models.merge: unknown option 'unit'"),
        ({"models": {"mine": {}}}, "^file: models.mine: --model: unknown model 'mine'"),
        ({"models": {"merge": {"units": 0}}}, "^file: models.merge: units: "),
        ({"train": {"run_dir": "x"}}, "^file: models.merge: run_dir is not how a run learns"),
        ({"train": {"seed": 3}}, "^file: seed is one of what trials differ in"),
        ({"seeds": []}, "^file: seeds: "),
        ({"evaluate": {"bim": 3}}, "^file: evaluate: unknown option 'bim'"),
        ({"evaluate": {"num_beams": 0}}, "^file: evaluate: --num-beams: "),
        ({"evaluate": {"split": "tset"}}, "^file: evaluate: --split: .*'tset'"),
        ({"skip": [{"modle": "merge"}]}, "^file: skip, entry 1: unknown key 'modle'"),
        ({"trials": [{"model": "nic"}]}, r"^file: trials, entry 1: there is no model 'nic' \(it could be one of merge"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(entries: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_experiment_config({**entries, **change}, "file")


def test_a_file_that_is_none_is_refused(tmp_path: Path, entries: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"nothing\.yaml: cannot read the file"):
        read_experiment_config(tmp_path / "nothing.yaml")
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(UsageError, match="expected `key: value` lines"):
        read_experiment_config(tmp_path / "list.yaml")
    (tmp_path / "bad.yaml").write_text("a: [\n")
    with pytest.raises(UsageError, match=r"bad\.yaml: not YAML"):
        read_experiment_config(tmp_path / "bad.yaml")
    assert read_experiment_config(put(tmp_path / "good.yaml", entries)) == parse_experiment_config(entries, "file")
