"""Collects the predictions of all trials for the same held-out images."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from features.inputs.file_reference import read_source_image
from features.store import Store
from pipelines.datasets.splits import compute_rank
from schemas.errors import StoreError
from trainer.evaluation.base import IMAGES, read_image_rows
from trainer.runs.directory import EVALUATION
from trainer.tasks.task import Task
from workflows.experiments.config import ExperimentConfig
from workflows.experiments.records import ExperimentDirectory, TrialResult, report_corruption


@dataclass(frozen=True)
class TrialPrediction:
    """The prediction of a trial for an image.

    Args:
        trial: Name of the trial.
        words: Words of the caption, or the label.
        wrong: For each word, whether no reference contains it, or whether it differs from the true label.
    """

    trial: str
    words: tuple[str, ...]
    wrong: tuple[bool, ...]


@dataclass(frozen=True)
class ComparedImage:
    """A held-out image with the predictions of all trials.

    Args:
        name: Image ID.
        image: The encoded image; None if it is not available.
        references: Reference captions, or the true label.
        predictions: The predictions.
    """

    name: str
    image: bytes | None
    references: tuple[str, ...]
    predictions: tuple[TrialPrediction, ...]


def compare_predictions(
    config: ExperimentConfig,
    directory: ExperimentDirectory,
    results: Sequence[TrialResult],
    store: Store | None,
    count: int,
) -> tuple[ComparedImage, ...]:
    """Selects images that all trials were evaluated on, those with different predictions first.

    Args:
        config: The experiment.
        directory: Directory of the experiment.
        results: Results of finished trials.
        store: The store; None if it is not available.
        count: Maximum number of images.
    """
    by_trial = {one.trial: _read_rows(directory.run(one.trial), one.evaluated) for one in results}
    common = set.intersection(*map(set, by_trial.values())) if by_trial else set()

    def rank(name: str) -> tuple[bool, int, str]:
        return len({rows[name].text for rows in by_trial.values()}) == 1, compute_rank(0, name), name

    names = sorted(common, key=rank)[:count]
    first = next(iter(by_trial.values()), {})
    task = config.training_task.task
    return tuple(
        ComparedImage(
            name=name,
            image=_read_image(store, config.dataset, name),
            references=first[name].references,
            predictions=tuple(
                _mark_errors(task, trial, rows[name].text, first[name].references) for trial, rows in by_trial.items()
            ),
        )
        for name in names
    )


class _ImageRow(NamedTuple):
    text: str
    references: tuple[str, ...]


def _read_rows(run_dir: Path, evaluated: Mapping[str, Any]) -> dict[str, _ImageRow]:
    evaluation = run_dir / EVALUATION / evaluated["split"]
    with report_corruption(evaluation / IMAGES):
        return {
            row["image"]: _ImageRow(row["prediction"], tuple(map(str, json.loads(row["references"]))))
            for row in read_image_rows(evaluation)
        }


def _read_image(store: Store | None, dataset: str, name: str) -> bytes | None:
    try:
        return read_source_image(store.dataset(dataset).get(name)) if store else None
    except StoreError:
        return None


def _mark_errors(task: Task, trial: str, text: str, references: Sequence[str]) -> TrialPrediction:
    words = tuple(text.split(" ")) if text else ()
    return TrialPrediction(trial, words, tuple(task.mark_errors(words, references)))
