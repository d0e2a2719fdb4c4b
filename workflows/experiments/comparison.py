"""Comparisons: how sure one can be that one trial scores more than another, on the very same images."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.bootstrap import CONFIDENCE_LEVEL, N_RESAMPLES, sample_means
from trainer.evaluation.coco_results import IMAGE_SCORES
from trainer.evaluation.recognizer_evaluation import PREDICTIONS
from trainer.runs.directory import EVALUATION
from workflows.experiments.records import RunLocation, TrialResult
from workflows.experiments.run_files import reading
from workflows.tasks import Score

_SEED = 0
_TAIL = (1 - CONFIDENCE_LEVEL) / 2


@dataclass(frozen=True)
class TrialComparison:
    """Trials held against each other in their telling score, image by image.

    Args:
        trials: tuple of str. Their names.
        values: float64 array [N, T]. The score of each image that all were scored on, a column a trial.
    """

    trials: tuple[str, ...]
    values: NDArray[np.float64]

    @cached_property
    def _means(self) -> NDArray[np.float64]:
        return sample_means(self.trials, self.values).resample(N_RESAMPLES, _SEED)

    def difference(self, old: str, new: str) -> Score | None:
        """How much more the new one scores on average, with its interval of 95 %; None where that is not known.

        The interval is the paired bootstrap's: both are drawn on the same images, so what makes an image hard for both
        does not widen it.
        """
        if not len(self.values) or old not in self.trials or new not in self.trials:
            return None
        a, b = self.trials.index(old), self.trials.index(new)
        low, high = np.quantile(self._means[:, b] - self._means[:, a], [_TAIL, 1 - _TAIL])
        return Score(float(np.mean(self.values[:, b] - self.values[:, a])), (float(low), float(high)))


def compare(place: RunLocation, results: Sequence[TrialResult], telling: str) -> TrialComparison:
    """The trials that are done, held against each other.

    Args:
        place: Place. The experiment's directory.
        results: sequence of TrialResult. Of the trials that are done.
        telling: str. The score.
    """
    each = {result.trial: _values(place.run(result.trial), result.evaluated, telling) for result in results}
    known = {trial: values for trial, values in each.items() if values}
    common = sorted(set.intersection(*map(set, known.values()))) if known else []
    columns = [[values[image] for image in common] for values in known.values()]
    return TrialComparison(tuple(known), np.array(columns, np.float64).T)


def readings(place: Path) -> list[dict[str, str]]:
    """What a recognizer read in each image, as its evaluation left it."""
    with reading(place / PREDICTIONS):
        return [{name: row[name] for name in ("image", "word", "greedy")} for row in _rows(place / PREDICTIONS)]


def _values(root: Path, evaluated: Mapping[str, Any], telling: str) -> dict[str, float]:
    """The telling score of each image, by id; nothing where an older evaluation did not leave it."""
    place = root / EVALUATION / evaluated["split"]
    if evaluated["task"] == "captcha":
        return {row["image"]: float(row["greedy"] == row["word"]) for row in readings(place)}
    with reading(place / IMAGE_SCORES):
        return {row["image"]: float(row[telling]) for row in _rows(place / IMAGE_SCORES)}


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    if any(None in row or None in row.values() for row in rows):
        raise ValueError("a line has more or fewer columns than the first")
    return rows
