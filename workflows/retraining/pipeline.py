"""Runs one retraining: prepare, compare, check, train, evaluate, decide."""

import importlib.metadata
import logging
import time
from dataclasses import asdict
from functools import cached_property
from typing import Any

from features.io.atomic_files import working_path
from features.io.locations import parse_location
from features.io.locks import hold_lock
from features.store import Store, create_store, open_store
from features.store.layout import MODELS, WORK
from features.store.leases import lease
from schemas.errors import CaptError, ExitCode
from schemas.manifests import Decision
from schemas.options.workflows import Retrain
from schemas.records import stack_keys
from schemas.table_config import SHORT_FINGERPRINT, compute_digest
from schemas.terminal.console import Printer
from trainer.runs.metadata import library_versions
from trainer.runs.run import Run, load_run
from workflows.model_registry import ChampionChangedError, RegisteredModel
from workflows.retraining import promotion_gate
from workflows.retraining.config import RetrainConfig, read_config
from workflows.retraining.data_checks import (
    DataCheckResult,
    DataDiff,
    check_data,
    check_failures,
    compare_data,
)
from workflows.retraining.data_snapshot import DataSnapshot
from workflows.retraining.decision_log import DecisionLog, find_finished
from workflows.retraining.drift import Moments, compute_moments
from workflows.retraining.notifications import notify
from workflows.retraining.preparation import (
    PreparedData,
    hash_inputs,
    hash_settings,
    prepare_data,
    read_snapshot,
    summarize,
)
from workflows.retraining.promotion_gate import GateResult

SNAPSHOT, MOMENTS = "data_snapshot.parquet", "feature_moments.npz"

_DRY_RUN_KEYS = ("hits", "misses", "estimated_seconds")
_TRAINING_KEYS = (
    *("epochs", "best_epoch", "steps", "loss", "seconds"),
    *("val_loss", "val_token_accuracy", "val_exact_match"),
)

_log = logging.getLogger("capt.retrain")


class DataCheckError(CaptError):
    """The new data failed a data check."""

    def __init__(self, result: DataCheckResult) -> None:
        self.result = result
        hint = "Fix the data, or change the limits under `data_checks`."
        super().__init__(f"the data checks failed: {'; '.join(result.failures)}", hint=hint)
        if result.too_many_failed:
            self.exit_code = ExitCode.TOO_MANY_FAILURES


def retrain(options: Retrain) -> dict[str, Any]:
    """Prepares new data, trains a challenger if the data checks pass, and promotes it if the gate accepts it.

    Returns:
        `decision` (`promoted`, `rejected`, `stale` or `no_change`), `reasons`, `name`, `store`, `champion` (name of its
        run) and `champion_dir`, `run` (name of the challenger), `prepared` (summary of each preparation), `data_diff`,
        `warnings`, `gate` and `seconds`. Stages that did not run are missing. For a dry run, `dry_run`
        is true, `prepared` also has `hits`, `misses` and `estimated_seconds`, and `decision` is `no_change`, `train`
        (the store has the data) or `prepare_and_train`; the data checks and the gate then decide.

    Raises:
        UsageError: The file is invalid.
        LockedError: Another process is retraining this model.
        DataCheckError: The new data failed a check. The error has the same values.
        CaptError: A stage failed. The failure is recorded in the model's history.
    """
    config = read_config(options.file)
    if options.dry_run:
        return _forecast(config)
    store = create_store(config.store)
    model = RegisteredModel(store, config.name)
    lock = working_path(store.path) / WORK / f"retrain-{config.name}.lock"
    with hold_lock(lock, f"retraining {config.name}"), lease(store.path, "prepare", {f"{MODELS}/{config.name}": ()}):
        retraining = _Retraining(config, store, model)
        try:
            outcome = retraining.run()
        except Exception as error:
            outcome = retraining.record_failure(error)
            notify(config.notifications, outcome)
            if isinstance(error, CaptError):
                error.summary = outcome
            raise
        notify(config.notifications, outcome)
    return outcome


def print_retrained(result: dict[str, Any]) -> None:
    """Prints the result of `retrain`; the error of a failed one has its reasons."""
    printer = Printer()
    reasons = () if result["decision"] in ("stopped", "failed") else result["reasons"]
    for line in (*reasons, *result.get("warnings", ())):
        printer.line(line)
    printer.line(f"{result['decision']}; champion: {result['champion'] or 'none yet'}")


class _Retraining:
    """One retraining in progress."""

    def __init__(self, config: RetrainConfig, store: Store, model: RegisteredModel) -> None:
        self.config = config
        self.store = store
        self.model = model
        self.log = DecisionLog(model, config.task)

    @cached_property
    def champion(self) -> Any:
        """The champion at the start; None without a champion."""
        return load_run(self.model.ensure_local(self.log.champion)) if self.log.champion else None

    @cached_property
    def old_snapshot(self) -> DataSnapshot | None:
        """The data of the champion; None without a champion."""
        return DataSnapshot.load(self.champion.path / SNAPSHOT) if self.champion else None

    def run(self) -> dict[str, Any]:
        """Runs all stages and returns the outcome."""
        self._start_stage("prepare")
        # Only a reused vocabulary needs the champion before the data is prepared.
        data = prepare_data(self.config, self.store, self.champion if self.config.vocabulary == "reuse" else None)
        snapshot = read_snapshot(self.store, data)
        inputs = hash_inputs(self.config, data, snapshot)
        self._identify(data, snapshot, inputs)
        finished = find_finished(self.log.history, inputs)
        if finished:
            return self._outcome("no_change", (finished,))
        self._start_stage("compare")
        diff = self._compare(data, snapshot)
        required = self.config.data_checks.min_new_records
        if diff and diff.new_records < required and self.log.has_champion_settings(self.log.lineage["settings"]):
            return self._outcome("no_change", (f"{diff.new_records} new records; {required} are required",))
        self._check(diff, data)
        self._start_stage("train")
        challenger = self._train(data, snapshot)
        self._start_stage("evaluate")
        result = promotion_gate.evaluate_challenger(
            self.champion, challenger, self.store, self.old_snapshot, snapshot, self.config.metric, self.config.gate
        )
        self._start_stage("decide")
        return self._decide(result)

    def record_failure(self, error: Exception) -> dict[str, Any]:
        """Records a failure, unless the last decision is equal, and returns the outcome."""
        if isinstance(error, DataCheckError):
            return self._record("stopped", error.result.failures)
        message = str(error) if isinstance(error, CaptError) else f"{type(error).__name__}: {error}"
        return self._record("failed", (message,))

    def _start_stage(self, stage: str) -> None:
        _log.info("retrain %s: %s", self.config.name, stage)

    # === Stages ===

    def _identify(self, data: PreparedData, snapshot: DataSnapshot, inputs: str) -> None:
        """Names the run by its data, settings and initial weights, and abandons unfinished runs of other names."""
        initial_run = self.champion.path.name if self.champion and self.config.initialization == "champion" else None
        self.log.run_name = compute_digest([inputs, initial_run])[:SHORT_FINGERPRINT]
        self.log.lineage |= {
            "inputs": inputs,
            "settings": hash_settings(self.config, data),
            "config": self.config.model_dump(mode="json"),
            "datasets": {name: self.store.dataset(name).manifest.digest for name in data.datasets},
            "snapshot": snapshot.digest,
            "tables": {**data.tables, "caption_tables": list(data.caption_tables)},
            "prepared": [summarize(summary) for summary in data.summaries],
            "compared_with": self.log.champion,
            "versions": {"capt": importlib.metadata.version("capt"), **library_versions()},
        }
        self.log.abandon_unfinished()

    def _compare(self, data: PreparedData, snapshot: DataSnapshot) -> DataDiff | None:
        if self.old_snapshot is None:
            return None
        path = self.champion.path / MOMENTS
        moments = Moments.load(path) if path.exists() else None
        diff = compare_data(self.store, self.champion, self.old_snapshot, moments, snapshot, data.failure_rate)
        self.log.lineage["data_diff"] = asdict(diff)
        return diff

    def _check(self, diff: DataDiff | None, data: PreparedData) -> None:
        checks = self.config.data_checks
        result = check_data(diff, checks) if diff else check_failures(data.failure_rate, checks)
        self.log.lineage["warnings"] = list(result.warnings)
        for warning in result.warnings:
            _log.warning("%s", warning)
        if result.failures:
            raise DataCheckError(result)

    def _train(self, data: PreparedData, snapshot: DataSnapshot) -> Run:
        assert self.log.run_name
        run_dir = self.model.run_path(self.log.run_name)
        options = dict(self.config.train)
        if self.config.initialization == "champion" and self.champion:
            options["warm_start_from"] = str(self.champion.path)
        summary = self.config.training_task.train(self.store.path, run_dir, options, data.tables, data.datasets)
        snapshot.save(run_dir / SNAPSHOT)
        moments = compute_moments(self.store.feature_table(data.tables["features"]), stack_keys(snapshot.rows))
        if moments:
            moments.save(run_dir / MOMENTS)
        self.log.lineage["trained"] = {name: summary[name] for name in _TRAINING_KEYS if name in summary}
        run: Run = load_run(run_dir)
        return run

    def _decide(self, result: GateResult) -> dict[str, Any]:
        self.log.lineage["gate"] = asdict(result)
        if not result.passed:
            return self._record("rejected", result.reasons)
        try:
            self.log.promote(result.reasons)
        except ChampionChangedError as error:
            return self._record("stale", (f"{error.message}; the next retraining uses the new champion",))
        return self._outcome("promoted", result.reasons)

    # === Results ===

    def _record(self, decision: Decision, reasons: tuple[str, ...]) -> dict[str, Any]:
        self.log.record(decision, reasons)
        return self._outcome(decision, reasons)

    def _outcome(self, decision: str, reasons: tuple[str, ...]) -> dict[str, Any]:
        champion = self.model.champion
        stages = ("prepared", "data_diff", "warnings", "gate")
        return {
            "decision": decision,
            "reasons": list(reasons),
            "name": self.config.name,
            "store": str(self.store.path),
            "champion": champion,
            "champion_dir": str(self.model.run_path(champion)) if champion else None,
            "run": self.log.run_name,
            **{name: self.log.lineage[name] for name in stages if name in self.log.lineage},
            "seconds": self.log.seconds,
        }


# === Dry run ===


def _forecast(config: RetrainConfig) -> dict[str, Any]:
    """Predicts the decision. The store is not changed."""
    started = time.monotonic()
    root = parse_location(config.store)
    store_exists = root.exists()
    store = open_store(root) if store_exists else Store(root)
    model = RegisteredModel(store, config.name)
    champion = model.champion if store_exists else None
    run = load_run(model.ensure_local(champion)) if champion else None
    data = prepare_data(config, store, run if config.vocabulary == "reuse" else None, dry_run=True)
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
