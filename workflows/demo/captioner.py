"""Prepares the tables of a captioned dataset and trains a captioner on them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from features.store import open_store
from schemas.errors import UsageError
from workflows.demo.steps import Steps
from workflows.demo.training import train_run
from workflows.prepared_tasks import find_prepared_task

ANNOTATIONS = "annotations/captions_{}2017.json"


@dataclass(frozen=True)
class CaptionerData:
    """The data of a captioner: options of both `capt prepare` commands, and further ones of each."""

    dataset: Mapping[str, Any]
    features: Mapping[str, Any]
    captions: Mapping[str, Any] = field(default_factory=dict)


def train_captioner(
    data: CaptionerData, store: Path, run_dir: Path, hyperparameters: Mapping[str, Any], steps: Steps
) -> dict[str, Any]:
    """Prepares the data, and trains or resumes the captioner. Returns the result of the training.

    Raises:
        UsageError: No image of val or test has a caption.
    """
    task = find_prepared_task("captioner")
    captions = steps.run(
        "tokenize captions",
        lambda: task.preparations["captions"].prepare(store, {**data.dataset, **data.captions}),
        "{ok} tokenized, {cached} already in the store, {vocab_size} words".format_map,
    )
    # Before the features, because their extraction takes longest.
    _check_unseen_images(store, captions["fingerprint"])
    features = steps.run(
        "extract features",
        lambda: task.preparations["features"].prepare(store, {**data.dataset, **data.features}),
        "{ok} extracted, {cached} already in the store, {failed} failed".format_map,
    )
    tables = {"features": features["fingerprint"], "captions": captions["fingerprint"]}
    dataset = str(data.dataset["dataset_name"])
    return train_run(task, "captioner", store, run_dir, hyperparameters, tables, dataset, steps)


def summarize_training(training: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the metrics of the best epoch."""
    return {name: training[name] for name in ("epochs", "val_loss", "val_token_accuracy") if name in training}


def _check_unseen_images(store: Path, captions: str) -> None:
    """Raises UsageError if all captions are of the train split, so that no image is left to be captioned."""
    splits = set(open_store(store).caption_table(captions).captions()["split"].to_pylist())
    if not splits & {"val", "test"}:
        raise UsageError(
            "no image of val or test has a caption, so the demo has no unseen images to caption",
            location="--annotations",
            hint="Add the annotation file of val or test, or assign images to val in the annotations.",
        )
