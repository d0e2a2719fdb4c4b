"""The grid is every combination of the axes that the file does not exclude."""

from pathlib import Path
from typing import Any

import pytest

from schemas.errors import UsageError
from tests.workflows.experiments.files import MERGE, NETWORK, captchas_of_two_sizes, captions_experiment
from workflows.experiments.config import parse_experiment_config
from workflows.experiments.planning import (
    build_grid,
    evaluation_options,
    list_tables,
    plan_experiment,
    preparation_options,
    select_trained,
)
from workflows.experiments.records import ExperimentRecord, TableKey


@pytest.fixture
def entries(tmp_path: Path) -> dict[str, Any]:
    return captions_experiment(
        tmp_path,
        tmp_path / "images",
        tmp_path / "captions.json",
        features={"a": NETWORK, "b": {**NETWORK, "pooling": "avg"}},
        captions={"all": {}, "few": {"vocab_size": 30}},
        models={"merge": {}, "nic": {}},
        seeds=[0, 5],
    )


def names(entries: dict[str, Any]) -> list[str]:
    return [trial.name for trial in grid(entries).trials]


def grid(entries: dict[str, Any]) -> ExperimentRecord:
    return build_grid(parse_experiment_config(entries, "file"), "file")


def test_the_grid_is_the_product_of_the_axes(entries: dict[str, Any]) -> None:
    made = names(entries)
    assert len(made) == len(set(made)) == 2 * 2 * 2 * 2
    assert made[0] == "merge-a-all-seed0"
    assert made[-1] == "nic-b-few-seed5"


def test_an_exclude_entry_removes_all_matching_trials(entries: dict[str, Any]) -> None:
    entries["exclude"] = [{"model": "nic", "features": ["a"], "seed": [0, 5]}, {"captions": "few", "seed": 5}]
    made = grid(entries)
    assert len(made.trials) == 16 - 4 - 4 + 1
    assert len(made.excluded) == 7
    assert "nic-a-few-seed5" in made.excluded


def test_include_entries_select_each_trial_once(entries: dict[str, Any]) -> None:
    entries["include"] = [
        {"model": "nic", "features": "b", "captions": "few", "seed": 5},
        {"features": "b", "captions": "few", "seed": 5},
    ]
    assert names(entries) == ["nic-b-few-seed5", "merge-b-few-seed5"]


def test_an_exclude_entry_that_matches_no_or_all_trials_is_refused(entries: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"^file: exclude: "):
        names({**entries, "exclude": [{"seed": [0, 5]}]})
    with pytest.raises(UsageError, match=r"^file: exclude, entry 1: "):
        names({**entries, "include": [{"model": "nic"}], "exclude": [{"model": "merge"}]})


def test_equal_names_of_two_trials_are_refused(entries: dict[str, Any]) -> None:
    models = {"m": MERGE, "m-a": MERGE}
    with pytest.raises(UsageError, match="m-a-b-all-seed0"):
        names({**entries, "models": models, "features": {"b": NETWORK, "a-b": NETWORK}})


# === Datasets ===


@pytest.fixture
def mixed(entries: dict[str, Any]) -> dict[str, Any]:
    """Returns an experiment on two datasets and their mix."""
    datasets = {"two": {"images": "two.zip"}, "three": {"images": "three.zip"}, "both": ["two", "three"]}
    tables = {"features": {"a": NETWORK}, "captions": {"few": {"vocab_size": 30}}, "seeds": [0]}
    return {**entries, **tables, "datasets": datasets, "models": {"merge": {}}}


def test_datasets_and_their_mixes_are_an_axis_of_the_grid(mixed: dict[str, Any]) -> None:
    trials = {trial.name: trial.datasets for trial in grid(mixed).trials}
    assert trials == {
        "merge-two-a-few-seed0": ("two",),
        "merge-three-a-few-seed0": ("three",),
        "merge-both-a-few-seed0": ("two", "three"),
    }
    mixed["exclude"] = [{"dataset": ["two", "three"]}]
    assert names(mixed) == ["merge-both-a-few-seed0"]


def test_a_mix_has_the_vocabulary_of_its_first_dataset(mixed: dict[str, Any]) -> None:
    config, (*_, both) = parse_experiment_config(mixed, "file"), grid(mixed).trials
    own, reusing = (key for key in list_tables(config, both) if key.kind == "captions")
    assert (own.dataset, own.vocabulary) == ("two", "")
    assert (reusing.dataset, reusing.vocabulary) == ("three", "two")
    assert preparation_options(config, own, {})["vocab_size"] == 30
    assert preparation_options(config, reusing, {}) is None
    options = preparation_options(config, reusing, {own: "f0"})
    assert (options["vocab_from"], options["dataset_name"]) == ("f0", "three")
    assert "vocab_size" not in options


def test_a_trial_is_evaluated_on_the_datasets_of_all_trials(mixed: dict[str, Any]) -> None:
    config, trials = parse_experiment_config(mixed, "file"), grid(mixed).trials
    for trial in trials:
        keys = list_tables(config, trial)
        fingerprints = {
            key: f"captions of {key.dataset} as {key.vocabulary or key.dataset}" if key.kind == "captions" else "one"
            for key in keys
        }
        evaluated = evaluation_options(config, trial, fingerprints)
        assert evaluated["dataset"] == ["two", "three"]
        last = "two" if trial.datasets == ("two", "three") else "three"
        assert evaluated["caption_table"] == ["captions of two as two", f"captions of three as {last}"]
        assert select_trained(trial, fingerprints)["captions"] == "captions of {0} as {0}".format(trial.datasets[0])


def test_features_of_the_datasets_of_a_trial_in_different_tables_are_refused(mixed: dict[str, Any]) -> None:
    config = parse_experiment_config(mixed, "file")
    for trial in grid(mixed).trials:
        fingerprints = {key: f"{key.kind} of {key.dataset}" for key in list_tables(config, trial)}
        with pytest.raises(UsageError, match=r"images of \w+ are in .* images of \w+ are in .*resize_mode"):
            select_trained(trial, fingerprints)


def test_datasets_that_choose_different_sizes_are_refused_before_anything_runs(tmp_path: Path) -> None:
    entries = {
        "task": "captcha",
        "store": str(tmp_path / "store"),
        "output_dir": str(tmp_path / "out"),
        "datasets": {**captchas_of_two_sizes(tmp_path), "both": ["short", "long"]},
        "captcha": {"auto": {}},
        "models": {"quick": {"profile": "quick"}},
    }
    sizes = r"short .*\(48×96, pad-border\).*long .*\(48×192, pad-border\)"
    with pytest.raises(UsageError, match=rf"^file: trial quick-short-auto-seed0: .*{sizes}"):
        plan_experiment(parse_experiment_config(entries, "file"), "file")
    entries["captcha"] = {"auto": {"height": 48, "width": 192}}
    assert len(plan_experiment(parse_experiment_config(entries, "file"), "file").trials) == 3


def test_an_experiment_of_one_dataset_sets_no_options_of_the_evaluation(entries: dict[str, Any]) -> None:
    config, first = parse_experiment_config(entries, "file"), grid(entries).trials[0]
    assert evaluation_options(config, first, {}) == config.evaluate
    assert list_tables(config, first) == (
        TableKey(kind="features", name="a", dataset="coco"),
        TableKey(kind="captions", name="all", dataset="coco"),
    )
