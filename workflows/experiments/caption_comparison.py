"""Collects the predictions of all trials for the same held-out images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from features.references.reference import read_source_image
from features.store import Store
from pipelines.datasets.splits import compute_rank
from schemas.errors import StoreError
from schemas.strict_json import parse_json
from trainer.evaluation.coco_results import RESULTS
from trainer.evaluation.prediction_pages import wrong_words
from trainer.runs.directory import EVALUATION
from workflows.experiments.comparison import read_label_predictions
from workflows.experiments.config import ExperimentConfig
from workflows.experiments.records import ExperimentDirectory, TrialResult, report_corruption


@dataclass(frozen=True)
class TrialPrediction:
    """The prediction of a trial for an image.

    Args:
        trial: Name of the trial.
        words: Words of the caption, or the label.
        wrong: For each word, whether it is in no reference, or not the true label.
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
    """Selects images that all trials were evaluated on. Images with different predictions come first.

    Args:
        config: The experiment.
        directory: Its directory.
        results: Results of finished trials.
        store: The store; None if it is not available.
        count: Maximum number of images.
    """
    by_trial = {one.trial: _read_predictions(directory.run(one.trial), one.evaluated) for one in results}
    common = set.intersection(*map(set, by_trial.values())) if by_trial else set()

    def rank(name: str) -> tuple[bool, int, str]:
        return len({texts[name] for texts in by_trial.values()}) == 1, compute_rank(0, name), name

    names = sorted(common, key=rank)[:count]
    references = _read_references(config, directory, results, store, names)
    return tuple(
        ComparedImage(
            name=name,
            image=_read_image(store, config.dataset, name),
            references=references.get(name, ()),
            predictions=tuple(
                _mark_wrong_words(config, trial, texts[name], references.get(name, ()))
                for trial, texts in by_trial.items()
            ),
        )
        for name in names
    )


def _read_predictions(run_dir: Path, evaluated: Mapping[str, Any]) -> dict[str, str]:
    """Reads the predictions by image ID from the evaluation of a run."""
    evaluation = run_dir / EVALUATION / evaluated["split"]
    if evaluated["task"] == "captcha":
        return {row["image"]: row["greedy"] for row in read_label_predictions(evaluation)}
    path = evaluation / RESULTS
    with report_corruption(path):
        return {str(one["image_id"]): str(one["caption"]) for one in parse_json(path.read_bytes())}


def _read_references(
    config: ExperimentConfig,
    directory: ExperimentDirectory,
    results: Sequence[TrialResult],
    store: Store | None,
    names: Sequence[str],
) -> dict[str, tuple[str, ...]]:
    """Reads the references by image ID; empty if they are not available."""
    if not names:
        return {}
    first = results[0]
    if config.task == "captcha":
        rows = read_label_predictions(directory.run(first.trial) / EVALUATION / first.evaluated["split"])
        return {row["image"]: (row["word"],) for row in rows}
    try:
        captions = store.caption_table(first.tables["captions"]).captions() if store else None
    except StoreError:
        captions = None
    if captions is None:
        return {}
    selected = captions.filter(pc.is_in(captions["image_id"], value_set=pa.array(names, pa.string()))).to_pylist()
    ordered = sorted(selected, key=lambda row: (len(row["caption_id"]), row["caption_id"]))
    return {name: tuple(row["caption"] for row in ordered if row["image_id"] == name) for name in names}


def _read_image(store: Store | None, dataset: str, name: str) -> bytes | None:
    try:
        return read_source_image(store.dataset(dataset).get(name)) if store else None
    except StoreError:
        return None


def _mark_wrong_words(config: ExperimentConfig, trial: str, text: str, references: Sequence[str]) -> TrialPrediction:
    words = tuple(text.split(" ")) if text else ()
    if config.task == "captcha":
        return TrialPrediction(trial, words, tuple(word not in references for word in words))
    return TrialPrediction(trial, words, tuple(wrong_words(words, references)) if references else (False,) * len(words))
