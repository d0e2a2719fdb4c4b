"""Predicts the decision of a retraining without changing anything."""

import time
from typing import Any

from features.io.locations import parse_location
from features.store import Store, open_store
from trainer.runs.run import load_run
from workflows.model_registry import RegisteredModel
from workflows.retraining.config import RetrainConfig
from workflows.retraining.decisions import find_finished
from workflows.retraining.preparation import PreparedData, hash_inputs, prepare_data, read_snapshot, summarize

_DRY_RUN_KEYS = ("hits", "misses", "estimated_seconds")


def forecast(config: RetrainConfig) -> dict[str, Any]:
    """Returns the summary that `capt retrain --dry-run` prints.

    `decision` is `no_change`, `train` (the store has the data) or `prepare_and_train`. The data checks and the gate
    then decide.
    """
    started = time.monotonic()
    root = parse_location(config.store)
    store_exists = root.exists()
    store = open_store(root) if store_exists else Store(root)
    model = RegisteredModel(store, config.name)
    champion = model.champion if store_exists else None
    run = load_run(model.ensure_local(champion)) if champion else None
    data = prepare_data(config, store, run, dry_run=True)
    if store_exists:
        decision, reason = _predict_decision(config, store, model, data)
    else:
        decision, reason = "prepare_and_train", "the store does not exist yet"
    return {
        "dry_run": True,
        "decision": decision,
        "reasons": [reason],
        "name": config.name,
        "store": str(store.path),
        "champion": champion,
        "champion_dir": str(run.path) if run else None,
        "prepared": [
            {**summarize(summary), **{name: summary[name] for name in _DRY_RUN_KEYS if name in summary}}
            for summary in data.summaries
        ],
        "seconds": round(time.monotonic() - started, 3),
    }


def _predict_decision(
    config: RetrainConfig, store: Store, model: RegisteredModel, data: PreparedData
) -> tuple[str, str]:
    misses = sum(summary["misses"] for summary in data.summaries)
    if misses:
        return "prepare_and_train", f"{misses:,} records are not in the store yet"
    known = {dataset.name for dataset in store.datasets()}
    missing = [name for name in data.datasets if name not in known]
    if missing:
        return "prepare_and_train", f"the dataset {missing[0]} is not in the store yet"
    tables = list(config.training_task.preparations)
    image_summaries = data.summaries[tables.index("features") :: len(tables)]
    removed = 0
    for name, summary in zip(data.datasets, image_summaries, strict=True):
        stored = sum(store.dataset(name).facts.images.values())
        removed += max(0, stored - int(summary["input"]) + int(summary["failed"]))
    if removed:
        return "prepare_and_train", f"{removed:,} images were removed"
    reason = find_finished(model.history(), hash_inputs(config, data, read_snapshot(store, data)))
    if reason:
        return "no_change", reason
    return "train", "the model has not been trained on this data with these settings"
