"""Prepares the tables of a captioned dataset and trains a captioner on them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workflows.demo.steps import Steps
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
    """Prepares the data, and trains or resumes the captioner. Returns the result of the training."""
    task = find_prepared_task("captioner")
    features = steps.run(
        "extract features",
        lambda: task.preparations["features"].prepare(store, {**data.dataset, **data.features}),
        "{ok} extracted, {cached} already in the store, {failed} failed".format_map,
    )
    captions = steps.run(
        "tokenize captions",
        lambda: task.preparations["captions"].prepare(store, {**data.dataset, **data.captions}),
        "{ok} tokenized, {cached} already in the store, {vocab_size} words".format_map,
    )
    tables = {"features": features["fingerprint"], "captions": captions["fingerprint"]}
    dataset = [str(data.dataset["dataset_name"])]
    return steps.run(
        "train the captioner",
        lambda: task.train(store, run_dir, hyperparameters, tables, dataset),
        "{epochs} epochs, best validation loss {val_loss:.3f}".format_map,
    )


def summarize_training(training: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the metrics of the best epoch."""
    return {name: training[name] for name in ("epochs", "val_loss", "val_token_accuracy")}
