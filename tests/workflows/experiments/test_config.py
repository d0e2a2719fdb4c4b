"""The experiment file is checked before anything runs, and errors name the location of the invalid value."""

from pathlib import Path
from typing import Any

import pytest

from schemas.errors import UsageError
from tests.workflows.experiments.files import captions_experiment, write_yaml
from workflows.experiments.config import parse_experiment_config, read_experiment_config


@pytest.fixture
def entries(tmp_path: Path) -> dict[str, Any]:
    return captions_experiment(tmp_path, tmp_path / "images", tmp_path / "captions.json")


def test_options_are_passed_to_their_preparation(entries: dict[str, Any]) -> None:
    entries["captions"] = {"few": {"vocab-size": 30}}
    entries["models"] = {"merge": {"units": 9}, "own": {"model": "nic"}}
    entries["train"] = {"epochs": 5, "units": 7}
    config = parse_experiment_config(entries, "file")
    assert list(config.sources) == ["coco"]
    assert "images" not in config.preparation_options("captions", "few", "coco")
    assert config.preparation_options("captions", "few", "coco")["vocab_size"] == 30
    assert config.preparation_options("features", "pooled", "coco")["images"] == entries["data"]["images"]
    assert config.training_options("merge", 3) == {"model": "merge", "epochs": 5, "units": 9, "seed": 3}
    assert config.training_options("own", 0)["model"] == "nic"


def test_the_options_of_a_dataset_add_to_those_of_all_datasets(entries: dict[str, Any]) -> None:
    entries["data"] = {"dataset_type": "coco", "limit-images": "9"}
    entries["datasets"] = {"a": {"images": "a.zip"}, "b": {"images": "b.zip", "limit_images": "5"}, "both": ["b", "a"]}
    config = parse_experiment_config(entries, "file")
    assert config.axes["dataset"] == ("a", "b", "both")
    assert config.training_datasets("both") == ("b", "a")
    options = config.preparation_options("features", "pooled", "b")
    assert (options["images"], options["limit_images"], options["dataset_name"]) == ("b.zip", "5", "b")
    assert config.preparation_options("features", "pooled", "a")["limit_images"] == "9"


def test_an_experiment_without_a_dataset_is_refused(entries: dict[str, Any]) -> None:
    del entries["data"]
    with pytest.raises(UsageError, match=r"^file: the key 'data' is missing"):
        parse_experiment_config(entries, "file")


TWO = {"a": {"images": "a.zip"}, "b": {"images": "b.zip"}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modles": {}}, "^file: unknown key 'modles'"),
        ({"task": "speech"}, r"^file: task: .*captioner.*got 'speech'"),
        ({"store": None}, "^file: store: "),
        ({"models": {}}, "^file: models: "),
        ({"features": {}}, "^file: features has no table"),
        ({"captcha": {"x": {}}}, "^file: the task captioner has no captcha"),
        ({"task": "captcha"}, "^file: the task captcha has no features"),
        ({"features": {"a/b": {}}}, "^file: features: invalid name 'a/b'"),
        ({"features": {"x": {"pooler": "avg"}}}, "^file: features.x: prepare features: --pooler: "),
        ({"features": {"x": {"pooling": "sum"}}}, "^file: features.x: prepare features: --pooling: "),
        ({"features": {"x": {"limit-images": 5}}}, "^file: features.x: limit_images "),
        (
            {"data": {"dataset_type": "coco", "pooling": "avg"}},
            "^file: data: pooling .*`features:`",
        ),
        ({"data": {"dataset_type": "coco", "imags": "x"}}, "^file: data: unknown option 'imags'"),
        ({"models": {"merge": {"unit": 3}}}, "^file: models.merge: unknown option 'unit'"),
        ({"models": {"mine": {}}}, "^file: models.mine: --model: unknown model 'mine'"),
        ({"models": {"merge": {"units": 0}}}, "^file: models.merge: units: "),
        ({"train": {"run_dir": "x"}}, "^file: models.merge: run_dir "),
        ({"train": {"seed": 3}}, "^file: seed .*`seeds:`"),
        ({"seeds": []}, "^file: seeds: "),
        ({"seeds": [1 << 32]}, r"^file: seeds"),
        ({"evaluate": {"bim": 3}}, "^file: evaluate: --bim: "),
        ({"evaluate": {"num_beams": 0}}, "^file: evaluate: --num-beams: "),
        ({"evaluate": {"top_k": 5}}, "^file: evaluate: [^:]"),
        ({"task": "captions"}, "^file: task: [^:]*'captions'"),
        ({"evaluate": {"split": "tset"}}, "^file: evaluate: --split: .*'tset'"),
        ({"datasets": {**TWO, "both": ["a", "c"]}}, "^file: datasets.both: unknown dataset 'c'"),
        (
            {"datasets": {**TWO, "both": ["a", "b"], "all": ["both", "a"]}},
            "^file: datasets.all: unknown dataset 'both'",
        ),
        ({"datasets": {**TWO, "both": ["a", "a"]}}, "^file: datasets.both: a list must have at least two"),
        ({"datasets": {**TWO, "alone": ["a"]}}, "^file: datasets.alone: a list must have at least two"),
        ({"datasets": {"a": {"imags": "x"}}}, "^file: datasets.a: unknown option 'imags'"),
        ({"datasets": {"a": {"pooling": "avg"}}}, "^file: datasets.a: pooling .*`features:`"),
        ({"datasets": {"a": {"dataset-name": "b"}}}, "^file: datasets.a: dataset_name .*`datasets:`"),
        ({"datasets": {"a/b": {}}}, "^file: dataset: invalid name 'a/b'"),
        ({"datasets": TWO, "exclude": [{"dataset": "c"}]}, "^file: exclude, entry 1: dataset: unknown name 'c'"),
        ({"evaluate": {"dataset": "a"}}, "^file: evaluate: dataset is set by the experiment"),
        ({"evaluate": {"caption-table": "a"}}, "^file: evaluate: caption_table is set by the experiment"),
        ({"exclude": [{"modle": "merge"}]}, "^file: exclude, entry 1: unknown key 'modle'"),
        ({"include": [{"model": "nic"}]}, "^file: include, entry 1: model: unknown name 'nic'"),
    ],
)
def test_an_invalid_value_is_named_with_its_location(
    entries: dict[str, Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        parse_experiment_config({**entries, **change}, "file")


@pytest.mark.parametrize("second", [{}, {"height": 40}, {"width": 80, "resize_mode": "stretch"}])
def test_several_tables_of_captchas_have_a_stated_size(tmp_path: Path, second: dict[str, Any]) -> None:
    entries = {
        "task": "captcha",
        "store": str(tmp_path / "store"),
        "output_dir": str(tmp_path / "out"),
        "data": {"images": "images"},
        "captcha": {"small": {"height": 32, "width": 64}, "auto": second},
        "models": {"quick": {"profile": "quick"}},
    }
    with pytest.raises(UsageError, match=r"^file: captcha.auto: .*Set height and width"):
        parse_experiment_config(entries, "file")
    parse_experiment_config({**entries, "captcha": {"auto": second}}, "file")
    parse_experiment_config(
        {**entries, "captcha": {**entries["captcha"], "auto": {"height": "40", "width": 80}}}, "file"
    )


def test_an_unreadable_file_is_refused(tmp_path: Path, entries: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"missing\.yaml"):
        read_experiment_config(tmp_path / "missing.yaml")
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(UsageError, match="expected `key: value` lines"):
        read_experiment_config(tmp_path / "list.yaml")
    (tmp_path / "bad.yaml").write_text("a: [\n")
    with pytest.raises(UsageError, match=r"bad\.yaml: not YAML"):
        read_experiment_config(tmp_path / "bad.yaml")
    assert read_experiment_config(write_yaml(tmp_path / "good.yaml", entries)) == parse_experiment_config(
        entries, "file"
    )
