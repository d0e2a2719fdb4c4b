"""The grid is every combination, but for those that the file skips or leaves out; nothing is dropped in silence."""

from pathlib import Path
from typing import Any

import pytest

from schemas.errors import UsageError
from tests.workflows.experiments.files import MERGE, NETWORK, captions_experiment
from workflows.experiments.config import parse_experiment_config
from workflows.experiments.grid import Grid, build_grid


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


def grid(entries: dict[str, Any]) -> Grid:
    return build_grid(parse_experiment_config(entries, "file"), "file")


def test_the_grid_is_the_product_and_its_names_can_be_read(entries: dict[str, Any]) -> None:
    made = names(entries)
    assert len(made) == len(set(made)) == 2 * 2 * 2 * 2
    assert made[0] == "merge-a-all-seed0"
    assert made[-1] == "nic-b-few-seed5"


def test_a_rule_skips_all_that_match_it_and_says_which(entries: dict[str, Any]) -> None:
    entries["skip"] = [{"model": "nic", "features": ["a"], "seed": [0, 5]}, {"captions": "few", "seed": 5}]
    made = grid(entries)
    assert len(made.trials) == 16 - 4 - 4 + 1
    assert len(made.skipped) == 7
    assert "nic-a-few-seed5" in made.skipped


def test_trials_are_those_that_are_named_each_once(entries: dict[str, Any]) -> None:
    entries["trials"] = [
        {"model": "nic", "features": "b", "captions": "few", "seed": 5},
        {"features": "b", "captions": "few", "seed": 5},
    ]
    assert names(entries) == ["nic-b-few-seed5", "merge-b-few-seed5"]


def test_a_rule_that_skips_nothing_or_all_is_refused(entries: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="file: skip: every trial is skipped"):
        names({**entries, "skip": [{"seed": [0, 5]}]})
    with pytest.raises(UsageError, match="file: skip, entry 1: no trial is so"):
        names({**entries, "trials": [{"model": "nic"}], "skip": [{"model": "merge"}]})


def test_names_that_would_be_those_of_two_trials_are_refused(entries: dict[str, Any]) -> None:
    models = {"m": MERGE, "m-a": MERGE}
    with pytest.raises(UsageError, match="two trials are called m-a-b-all-seed0"):
        names({**entries, "models": models, "features": {"b": NETWORK, "a-b": NETWORK}})
