"""Compares trials on the images that all of them were evaluated on: their scores and their predictions."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from features.inputs.file_reference import read_source_image
from features.store import Store
from pipelines.datasets.splits import compute_rank
from schemas.errors import StoreError
from trainer.evaluation.bootstrap import CONFIDENCE_LEVEL, N_RESAMPLES, Score, sample_means
from trainer.evaluation.evaluate import IMAGES, read_image_rows
from workflows.experiments.config import ExperimentConfig
from workflows.experiments.records import ExperimentDirectory, TrialResult, report_corruption

_SEED = 0
_TAIL = (1 - CONFIDENCE_LEVEL) / 2

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class TrialComparison:
    """The primary metric of T trials on the images that all of them were evaluated on, float64 [images, T]."""

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
class ComparedImage:
    """A held-out image, if it is available, with its reference captions or its label, and the text of each trial."""

    image_id: str
    image: bytes | None
    references: tuple[str, ...]
    predictions: Mapping[str, str]


def compare_trials(directory: ExperimentDirectory, results: Sequence[TrialResult], metric: str) -> TrialComparison:
    """Reads the primary metric per image of finished trials."""
    values = _read_images(directory, results, lambda row: float(row[metric]))
    known = {trial: by_image for trial, by_image in values.items() if by_image}
    columns = [[by_image[image] for image in sorted(_common_images(known))] for by_image in known.values()]
    return TrialComparison(tuple(known), np.array(columns, np.float64).T)


def compare_predictions(
    config: ExperimentConfig,
    directory: ExperimentDirectory,
    results: Sequence[TrialResult],
    store: Store | None,
    count: int,
) -> tuple[ComparedImage, ...]:
    """Selects at most `count` images that all trials were evaluated on, those with different predictions first."""
    rows = _read_images(
        directory, results, lambda row: (row["prediction"], tuple(map(str, json.loads(row["references"]))))
    )

    def rank(image_id: str) -> tuple[bool, int, str]:
        return len({by_image[image_id][0] for by_image in rows.values()}) == 1, compute_rank(0, image_id), image_id

    def compare(image_id: str) -> ComparedImage:
        texts = {trial: by_image[image_id][0] for trial, by_image in rows.items()}
        references = next(by_image[image_id][1] for by_image in rows.values())
        return ComparedImage(image_id, _read_image(store, config, image_id), references, texts)

    return tuple(map(compare, sorted(_common_images(rows), key=rank)[:count]))


def _read_images(
    directory: ExperimentDirectory, results: Sequence[TrialResult], parse: Callable[[dict[str, str]], _Value]
) -> dict[str, dict[str, _Value]]:
    """Returns a value per trial and image of its evaluation; no images if the evaluation does not have the file."""
    values = {}
    for result in results:
        evaluation = directory.evaluation(result)
        with report_corruption(evaluation / IMAGES):
            values[result.trial] = {row["image"]: parse(row) for row in read_image_rows(evaluation)}
    return values


def _common_images(values: Mapping[str, Mapping[str, Any]]) -> set[str]:
    return set.intersection(*map(set, values.values())) if values else set()


def _read_image(store: Store | None, config: ExperimentConfig, image_id: str) -> bytes | None:
    dataset = next(iter(config.sources))
    if len(config.sources) > 1:  # names of images begin with that of their dataset
        dataset, _, image_id = image_id.partition("/")
    try:
        return read_source_image(store.dataset(dataset).get(image_id)) if store else None
    except StoreError:
        return None
