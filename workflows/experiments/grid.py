"""Grids: the trials of an experiment, every combination of what they differ in, and those that are skipped."""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from schemas.errors import UsageError
from workflows.experiments.config import MODEL, SEED, Choice, ExperimentConfig


@dataclass(frozen=True)
class Trial:
    """One run of an experiment.

    Args:
        at: mapping. Its place in the grid: a name by axis, in the order of the axes.
        tables: mapping of str. The names of its tables, by kind.
        options: mapping. What it is trained with.
    """

    at: Mapping[str, str | int]
    tables: Mapping[str, str]
    options: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What it is called, and its directory: `soft_attention-inception-words5000-seed0`."""
        return "-".join(f"seed{name}" if axis == SEED else str(name) for axis, name in self.at.items())


@dataclass(frozen=True)
class Grid:
    """The trials of an experiment.

    Args:
        trials: tuple of Trial. Those that there are to be.
        skipped: tuple of str. The names of those that the file leaves out.
    """

    trials: tuple[Trial, ...]
    skipped: tuple[str, ...]


def build_grid(definition: ExperimentConfig, location: str) -> Grid:
    """The trials that an experiment is made of.

    Args:
        definition: Definition. What its file says.
        location: str. The file, for errors.

    Raises:
        UsageError: an entry of `skip` skips nothing, all is skipped, or two trials have one name.
    """
    chosen = dict.fromkeys(place for choice in definition.trials or ({},) for place in _places(definition, choice))
    trials = [_trial(definition, dict(place)) for place in chosen]
    for number, choice in enumerate(definition.skip, 1):
        if not any(_matches(trial, choice) for trial in trials):
            raise UsageError("no trial is so", location=f"{location}: skip, entry {number}", hint="leave it out")
    skipped = [trial for trial in trials if any(_matches(trial, choice) for choice in definition.skip)]
    kept = [trial for trial in trials if trial not in skipped]
    if not kept:
        raise UsageError("every trial is skipped", location=f"{location}: skip")
    twice = [name for name, times in Counter(trial.name for trial in kept).items() if times > 1]
    if twice:
        raise UsageError(
            f"two trials are called {twice[0]}", location=location, hint="take dashes out of their parts' names"
        )
    return Grid(tuple(kept), tuple(trial.name for trial in skipped))


def _places(definition: ExperimentConfig, choice: Choice) -> Iterator[tuple[tuple[str, str | int], ...]]:
    """The places of the grid that a choice names; an axis that it does not say, it takes whole."""
    axes = [[(axis, name) for name in choice.get(axis, names)] for axis, names in definition.axes.items()]
    return itertools.product(*axes)


def _trial(definition: ExperimentConfig, at: Mapping[str, str | int]) -> Trial:
    each = definition.of_task.preparations.items()
    return Trial(
        at=at,
        tables={kind: str(at[preparation.command]) for kind, preparation in each},
        options=definition.training(str(at[MODEL]), int(at[SEED])),
    )


def _matches(trial: Trial, choice: Choice) -> bool:
    return all(trial.at[axis] in names for axis, names in choice.items())
