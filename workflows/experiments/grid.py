"""Builds the trials of an experiment: every combination of the axes that is not excluded."""

import itertools
from collections import Counter
from collections.abc import Mapping

from schemas.errors import UsageError
from workflows.experiments.config import MODEL, SEED, ExperimentConfig, TrialFilter
from workflows.experiments.records import ExperimentRecord, Trial


def build_grid(config: ExperimentConfig, location: str) -> ExperimentRecord:
    """Builds the trials of an experiment; `location` names its file in errors.

    Raises:
        UsageError: An entry of `exclude` matches no trial, all trials are excluded, or two trials have one name.
    """
    positions: list[tuple[tuple[str, str | int], ...]] = []
    for one in config.include or ({},):  # a missing axis matches all of its values
        axes = [[(axis, value) for value in one.get(axis, values)] for axis, values in config.axes.items()]
        positions += itertools.product(*axes)
    trials = [_build_trial(config, dict(position)) for position in dict.fromkeys(positions)]
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
    return ExperimentRecord(config=config, trials=tuple(kept), excluded=tuple(trial.name for trial in excluded))


def _build_trial(config: ExperimentConfig, position: Mapping[str, str | int]) -> Trial:
    preparations = config.training_task.preparations.items()
    return Trial(
        name="-".join(f"seed{value}" if axis == SEED else str(value) for axis, value in position.items()),
        position=dict(position),
        tables={kind: str(position[preparation.command]) for kind, preparation in preparations},
        options=config.training_options(str(position[MODEL]), int(position[SEED])),
    )


def _matches(trial: Trial, one: TrialFilter) -> bool:
    return all(trial.position[axis] in values for axis, values in one.items())
