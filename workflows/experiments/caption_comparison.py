"""Sayings: what the trials of an experiment say of the same held-out images, side by side."""

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
from workflows.experiments.comparison import readings
from workflows.experiments.config import ExperimentConfig
from workflows.experiments.records import RunLocation, TrialResult
from workflows.experiments.run_files import reading


@dataclass(frozen=True)
class TrialPrediction:
    """What a trial says of an image: the words, and which of them are in no reference, or are not what it says."""

    trial: str
    words: tuple[str, ...]
    wrong: tuple[bool, ...]


@dataclass(frozen=True)
class ComparedImage:
    """A held-out image, and what is said of it.

    Args:
        name: str. Its id in the dataset.
        image: bytes or None. The encoded image; None where it is not at hand.
        truth: tuple of str. What people say of it, or its word.
        said: tuple of Said. What each trial says.
    """

    name: str
    image: bytes | None
    truth: tuple[str, ...]
    said: tuple[TrialPrediction, ...]


def side_by_side(
    definition: ExperimentConfig, place: RunLocation, results: Sequence[TrialResult], store: Store | None, count: int
) -> tuple[ComparedImage, ...]:
    """Images that all trials were scored on, with what each says of them; those first on which they do not agree.

    Args:
        definition: Definition. The experiment.
        place: Place. Its directory.
        results: sequence of TrialResult. Of the trials that are done.
        store: Store or None. The store; None where it is not at hand.
        count: int. Images at most.
    """
    answers = {result.trial: _answers(place.run(result.trial), result.evaluated) for result in results}
    common = set.intersection(*map(set, answers.values())) if answers else set()

    def rank(name: str) -> tuple[bool, int, str]:
        return len({told[name] for told in answers.values()}) == 1, compute_rank(0, name), name

    names = sorted(common, key=rank)[:count]
    truth = _truth(definition, place, results, store, names)
    return tuple(
        ComparedImage(
            name=name,
            image=_image(store, definition.dataset, name),
            truth=truth.get(name, ()),
            said=tuple(_said(definition, trial, told[name], truth.get(name, ())) for trial, told in answers.items()),
        )
        for name in names
    )


def _answers(root: Path, evaluated: Mapping[str, Any]) -> dict[str, str]:
    """What a run said of each image, by id, as its evaluation left it."""
    place = root / EVALUATION / evaluated["split"]
    if evaluated["task"] == "captcha":
        return {row["image"]: row["greedy"] for row in readings(place)}
    with reading(place / RESULTS):
        return {str(one["image_id"]): str(one["caption"]) for one in parse_json((place / RESULTS).read_bytes())}


def _truth(
    definition: ExperimentConfig,
    place: RunLocation,
    results: Sequence[TrialResult],
    store: Store | None,
    names: Sequence[str],
) -> dict[str, tuple[str, ...]]:
    """What is true of images, by id, as far as it is at hand."""
    if not names:
        return {}
    first = results[0]
    if definition.task == "captcha":
        rows = readings(place.run(first.trial) / EVALUATION / first.evaluated["split"])
        return {row["image"]: (row["word"],) for row in rows}
    try:
        captions = store.caption_table(first.tables["captions"]).captions() if store else None
    except StoreError:
        captions = None
    if captions is None:
        return {}
    chosen = captions.filter(pc.is_in(captions["image_id"], value_set=pa.array(names, pa.string()))).to_pylist()
    ordered = sorted(chosen, key=lambda row: (len(row["caption_id"]), row["caption_id"]))
    return {name: tuple(row["caption"] for row in ordered if row["image_id"] == name) for name in names}


def _image(store: Store | None, dataset: str, name: str) -> bytes | None:
    try:
        return read_source_image(store.dataset(dataset).get(name)) if store else None
    except StoreError:
        return None


def _said(definition: ExperimentConfig, trial: str, text: str, truth: Sequence[str]) -> TrialPrediction:
    words = tuple(text.split(" ")) if text else ()
    if definition.task == "captcha":
        return TrialPrediction(trial, words, tuple(word not in truth for word in words))
    return TrialPrediction(trial, words, tuple(wrong_words(words, truth)) if truth else (False,) * len(words))
