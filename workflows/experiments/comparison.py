"""Compares trials: the difference of their scores on the same images, and the settings that differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.base import IMAGES, read_image_rows
from trainer.evaluation.bootstrap import CONFIDENCE_LEVEL, N_RESAMPLES, Score, sample_means
from trainer.runs.directory import EVALUATION
from workflows.experiments.config import ExperimentConfig
from workflows.experiments.records import ExperimentDirectory, TrialRecord, TrialResult, report_corruption

Settings = Mapping[str, Any]

_SEED = 0
_TAIL = (1 - CONFIDENCE_LEVEL) / 2


@dataclass(frozen=True)
class TrialComparison:
    """The primary metric of trials on the images that all of them were evaluated on.

    Args:
        trials: Names of the T trials.
        values: float64 array [images, T].
    """

    trials: tuple[str, ...]
    values: NDArray[np.float64]

    @cached_property
    def _resampled_means(self) -> NDArray[np.float64]:
        return sample_means(self.trials, self.values).resample(N_RESAMPLES, _SEED)

    def difference(self, old: str, new: str) -> Score | None:
        """Returns the mean difference with its confidence interval; None if a trial has no scores per image.

        The bootstrap is paired: both trials are resampled on the same images, so that the difficulty of an image does
        not widen the interval.
        """
        if not len(self.values) or old not in self.trials or new not in self.trials:
            return None
        a, b = self.trials.index(old), self.trials.index(new)
        means = self._resampled_means
        low, high = np.quantile(means[:, b] - means[:, a], [_TAIL, 1 - _TAIL])
        return Score(float(np.mean(self.values[:, b] - self.values[:, a])), (float(low), float(high)))


@dataclass(frozen=True)
class Change:
    """A setting with different values in two trials."""

    name: str
    old: Any
    new: Any


def compare_trials(directory: ExperimentDirectory, results: Sequence[TrialResult], metric: str) -> TrialComparison:
    """Reads the primary metric per image of finished trials."""
    values = {result.trial: _read_values(directory.run(result.trial), result.evaluated, metric) for result in results}
    known = {trial: by_image for trial, by_image in values.items() if by_image}
    common = sorted(set.intersection(*map(set, known.values()))) if known else []
    columns = [[by_image[image] for image in common] for by_image in known.values()]
    return TrialComparison(tuple(known), np.array(columns, np.float64).T)


def list_settings(config: ExperimentConfig, trial: TrialRecord) -> dict[str, Any]:
    """Returns all settings of a trial by name, defaults included: settings of its tables and of its training."""
    settings = config.training_task.settings(trial.options)
    for kind, preparation in config.training_task.preparations.items():
        options = preparation.parse(config.store, config.preparation_options(kind, trial.tables[kind]))
        rows = options.model_dump(include=set(preparation.row_options), mode="json")
        settings |= {f"{preparation.command}.{name}": value for name, value in rows.items()}
    return settings


def list_changes(old: Settings, new: Settings) -> tuple[Change, ...]:
    """Returns the settings that both trials have with different values."""
    return tuple(Change(name, old[name], new[name]) for name in old if name in new and old[name] != new[name])


def list_missing(settings: Settings, other: Settings) -> tuple[str, ...]:
    """Returns the names of settings that the other trial lacks."""
    return tuple(name for name in settings if name not in other)


def list_varying(trials: Sequence[Settings]) -> tuple[str, ...]:
    """Returns the names of settings that are not equal in all trials."""
    names = dict.fromkeys(name for settings in trials for name in settings)
    return tuple(name for name in names if any(one.get(name) != trials[0].get(name) for one in trials))


def _read_values(run_dir: Path, evaluated: Mapping[str, Any], metric: str) -> dict[str, float]:
    """Reads the metric by image; empty if the evaluation does not have the file."""
    evaluation = run_dir / EVALUATION / evaluated["split"]
    with report_corruption(evaluation / IMAGES):
        return {row["image"]: float(row[metric]) for row in read_image_rows(evaluation)}
