"""Differences: the settings of trials by name, and what changed between any two."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workflows.experiments.config import ExperimentConfig
from workflows.experiments.records import TrialRecord

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    """A setting that two trials have otherwise: its name, and what it is in the one and in the other."""

    name: str
    old: Any
    new: Any


def list_settings(definition: ExperimentConfig, trial: TrialRecord) -> dict[str, Any]:
    """All that decides a trial, by name, defaults included: how its tables are made, what is trained, and how.

    Args:
        definition: Definition. The experiment.
        trial: TrialRecord. One of its trials.
    """
    settings = definition.of_task.settings(trial.options)
    for kind, preparation in definition.of_task.preparations.items():
        options = preparation.parsed(definition.store, definition.preparing(kind, trial.tables[kind]))
        rows = options.model_dump(include=set(preparation.of_rows), mode="json")
        settings |= {f"{preparation.command}.{name}": value for name, value in rows.items()}
    return settings


def changes(old: Settings, new: Settings) -> tuple[Change, ...]:
    """What changed from one trial to another, of the settings that both have."""
    return tuple(Change(name, old[name], new[name]) for name in old if name in new and old[name] != new[name])


def own(settings: Settings, other: Settings) -> tuple[str, ...]:
    """Names of the settings that another trial's model does not have."""
    return tuple(name for name in settings if name not in other)


def varying(each: Sequence[Settings]) -> tuple[str, ...]:
    """Names of the settings that are not the same in all trials."""
    names = dict.fromkeys(name for settings in each for name in settings)
    return tuple(name for name in names if any(one.get(name) != each[0].get(name) for one in each))
