"""The grid is every combination of the axes that the file does not exclude."""

from pathlib import Path
from typing import Any

import pytest

from schemas.errors import UsageError
from tests.workflows.experiments.files import MERGE, NETWORK, captions_experiment
from workflows.experiments.config import parse_experiment_config
from workflows.experiments.planning import build_grid
from workflows.experiments.records import ExperimentRecord


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
