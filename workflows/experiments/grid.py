"""Builds the trials of an experiment: every combination of the axes that is not excluded."""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from schemas.errors import UsageError
from workflows.experiments.config import MODEL, SEED, ExperimentConfig, TrialFilter


@dataclass(frozen=True)
class Trial:
    """One run of an experiment.

    Args:
        position: Position in the grid: a value per axis, in the order of the axes.
        tables: Table names by key of `Task.preparations`.
        options: Options and hyperparameters of the training.
    """

    position: Mapping[str, str | int]
    tables: Mapping[str, str]
    options: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of the trial and its directory, such as `soft_attention-inception-words5000-seed0`."""
        return "-".join(f"seed{value}" if axis == SEED else str(value) for axis, value in self.position.items())


@dataclass(frozen=True)
class Grid:
    """The trials of an experiment, and the names of the excluded ones."""

    trials: tuple[Trial, ...]
    excluded: tuple[str, ...]


def build_grid(config: ExperimentConfig, location: str) -> Grid:
    """Builds the trials of an experiment.

    Args:
        config: The experiment.
        location: Name of the file in errors.

    Raises:
        UsageError: An entry of `exclude` matches no trial, all trials are excluded, or two trials have one name.
    """
    positions = dict.fromkeys(position for one in config.include or ({},) for position in _list_positions(config, one))
    trials = [_build_trial(config, dict(position)) for position in positions]
    for number, one in enumerate(config.exclude, 1):
        if not any(_matches(trial, one) for trial in trials):
            entry = f"{location}: exclude, entry {number}"
            raise UsageError("the entry matches no trial", location=entry, hint="Remove the entry.")
    excluded = [trial for trial in trials if any(_matches(trial, one) for one in config.exclude)]
    kept = [trial for trial in trials if trial not in excluded]
    if not kept:
        raise UsageError("all trials are excluded", location=f"{location}: exclude")
    duplicates = [name for name, count in Counter(trial.name for trial in kept).items() if count > 1]
    if duplicates:
        hint = "Remove the dashes from the names of models and tables."
        raise UsageError(f"two trials have the name {duplicates[0]}", location=location, hint=hint)
    return Grid(tuple(kept), tuple(trial.name for trial in excluded))


def _list_positions(config: ExperimentConfig, one: TrialFilter) -> Iterator[tuple[tuple[str, str | int], ...]]:
    """Lists the positions that a filter matches. A missing axis matches all of its values."""
    axes = [[(axis, value) for value in one.get(axis, values)] for axis, values in config.axes.items()]
    return itertools.product(*axes)


def _build_trial(config: ExperimentConfig, position: Mapping[str, str | int]) -> Trial:
    preparations = config.training_task.preparations.items()
    return Trial(
        position=position,
        tables={kind: str(position[preparation.command]) for kind, preparation in preparations},
        options=config.training_options(str(position[MODEL]), int(position[SEED])),
    )


def _matches(trial: Trial, one: TrialFilter) -> bool:
    return all(trial.position[axis] in values for axis, values in one.items())
