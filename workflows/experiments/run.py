"""Runs an experiment: prepares each table once, and trains and evaluates every trial that is not done."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.io.locations import local_path, parse_location
from features.store import Store, open_store
from schemas.errors import CaptError, StoreError
from schemas.options.workflows import ExperimentRun
from schemas.table_config import SHORT_FINGERPRINT
from schemas.terminal.console import Printer
from trainer.evaluation.bootstrap import Score
from trainer.runs.directory import LOGS, lock_run
from workflows.experiments.config import MODEL, ExperimentConfig, read_experiment_config
from workflows.experiments.planning import (
    ExperimentPlan,
    PlannedTable,
    evaluation_options,
    identify_trial,
    is_done,
    list_tables,
    plan_experiment,
    preparation_options,
    select_trained,
)
from workflows.experiments.records import (
    ExperimentDirectory,
    TableKey,
    TableRecord,
    Trial,
    TrialResult,
    read_epochs,
    read_record,
    write_record,
)
from workflows.prepared_tasks import evaluate_run, find_prepared_task

# Name in TensorBoard of the axis of models; `model` is the name of the architecture.
MODELS = "models"
_TABLE_COLUMNS = ("trials", "hits", "misses", "MB to add", "seconds")

_log = logging.getLogger("capt.experiment")


def run_experiment(options: ExperimentRun) -> dict[str, Any]:
    """Runs the remaining trials of an experiment. A failed trial does not stop the others.

    Returns:
        `experiment` (the file), `task`, `store` and `output_dir`; `tables`, for each: `kind`, `names`, `labels`
        (names with their datasets, if there are several), `dataset`, `vocabulary_of` (the dataset whose vocabulary is
        reused), `fingerprint` (None while that vocabulary does not exist), `hits`, `misses`, `failed`, `bytes`,
        `estimated_seconds` and `shape` before the run, and `trials` (names of those that need the table); `excluded`
        (names of trials); `done`, `incomplete` and `pending` (numbers of trials). For a dry run, `trials` has `trial`,
        `state` (`done`, `incomplete`, `pending`) and `last_failure`. Otherwise it has `trial`, `state` (`done`,
        `failed`), `reason` and `scores`, and the result has `failed_trials` (names) and `seconds`.

    Raises:
        UsageError: The file is invalid, or a model cannot be trained on a table of its trials.
        LockedError: Another process runs an experiment in this directory.
        CaptError: Trials failed. The error has the same values.
    """
    started = time.monotonic()
    config = read_experiment_config(options.file)
    directory = ExperimentDirectory(local_path(config.output_dir, "output_dir").absolute())
    head = {
        "experiment": options.file,
        "task": config.task,
        "store": str(parse_location(config.store)),
        "output_dir": str(directory.root),
    }
    if options.dry_run:
        return {**head, "dry_run": True, **plan_experiment(config, options.file).to_dict()}
    with lock_run(directory.root):
        plan = plan_experiment(config, options.file)
        _log_plan(plan)
        results = _Experiment(config, directory, plan).run()
    summary = {**head, **plan.to_dict(), **_summarize_results(config, plan, results)}
    summary["seconds"] = round(time.monotonic() - started, 3)
    if failed := summary["failed_trials"]:
        reasons = "; ".join(f"{name}: {results[name].reason}" for name in failed[:3])
        raise CaptError(
            f"{len(failed)} of {len(results)} trials failed: {reasons}",
            location=options.file,
            hint="Run the same command again to repeat only the failed trials.",
            summary=summary,
        )
    return summary


def print_experiment(result: Mapping[str, Any]) -> None:
    """Prints the result of `run_experiment`: the tables, and the trials with their states or scores."""
    printer = Printer()
    printer.table("tables", ("table", "fingerprint"), _TABLE_COLUMNS, [_table_row(table) for table in result["tables"]])
    if "dry_run" in result:
        rows = [[one["trial"], one["state"], one["last_failure"] or ""] for one in result["trials"]]
        printer.table("trials", ("trial", "state", "last failure"), (), rows)
        counts = f"{result['done']} done, {result['incomplete']} incomplete, {result['pending']} pending"
        printer.line(f"{counts}, {len(result['excluded'])} excluded")
        return
    titles = find_prepared_task(result["task"]).task.metrics
    rows = [
        [one["trial"], *(f"{100 * one['scores'][name]:.1f}" if name in one["scores"] else None for name in titles)]
        for one in result["trials"]
    ]
    printer.table("scores × 100", ("trial",), tuple(titles.values()), rows)
    printer.line(f"Write the report with: capt experiment report {result['output_dir']}")


def _table_row(table: Mapping[str, Any]) -> list[Any]:
    size, seconds = table["bytes"], table["estimated_seconds"]
    return [
        f"{table['kind']}: {', '.join(table['labels'])}",
        table["fingerprint"][:SHORT_FINGERPRINT] if table["fingerprint"] else None,
        len(table["trials"]),
        table["hits"],
        table["misses"],
        None if size is None else f"{size / 1e6:,.1f}",
        None if seconds is None else f"{seconds:,.0f}",
    ]


def _log_plan(plan: ExperimentPlan) -> None:
    for table in plan.tables:
        trials = len(plan.list_users(table))
        seconds = table.summary.get("estimated_seconds")
        estimate = f", about {seconds:.0f} s" if seconds and table.summary["misses"] else ""
        _log.info("%s: %d records to prepare%s; %d trials", table.label, table.summary["misses"], estimate, trials)
    states = [planned.state for planned in plan.trials]
    _log.info("Trials: %s.", ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)))


def _summarize_results(
    config: ExperimentConfig, plan: ExperimentPlan, results: Mapping[str, TrialResult]
) -> dict[str, Any]:
    task = config.training_task
    trials = []
    for planned in plan.trials:
        result = results[planned.trial.name]
        found = task.task.read_scores(result.evaluated) if result.status == "done" else {}
        scores = {name: found[name].value for name in task.task.metrics if name in found}
        reason = result.reason or None
        trials.append({"trial": result.trial, "state": result.status, "reason": reason, "scores": scores})
    failed = [one["trial"] for one in trials if one["state"] == "failed"]
    done = len(trials) - len(failed)
    return {"trials": trials, "failed_trials": failed, "done": done, "incomplete": 0, "pending": 0}


@dataclass(frozen=True)
class _Experiment:
    """An experiment whose directory is locked."""

    config: ExperimentConfig
    directory: ExperimentDirectory
    plan: ExperimentPlan

    def run(self) -> dict[str, TrialResult]:
        """Prepares the tables, runs the trials, and returns the results by trial name."""
        trials = self.plan.record.trials
        write_record(self.directory.experiment, self.plan.record)
        prepared: dict[TableKey, tuple[str, str]] = {}
        for table in self.plan.tables:
            prepared |= dict.fromkeys(table.keys, self._prepare(table, prepared))
        results = {}
        for number, trial in enumerate(trials, 1):
            _log.info("Trial %d of %d: %s.", number, len(trials), trial.name)
            tables = {key: prepared[key] for key in list_tables(self.config, trial)}
            results[trial.name] = self._run_trial(trial, tables)
        return results

    def _prepare(self, table: PlannedTable, prepared: Mapping[TableKey, tuple[str, str]]) -> tuple[str, str]:
        """Prepares a table once for all its keys, and returns its fingerprint and the reason if that failed.

        A failure affects only the trials that need the table.
        """
        _log.info("Preparing %s.", table.label)
        fingerprints = {key: fingerprint for key, (fingerprint, failure) in prepared.items() if not failure}
        try:
            options = preparation_options(self.config, table.keys[0], fingerprints)
            if options is None:
                raise CaptError(f"the captions of {table.vocabulary} were not prepared")
            summary = self.config.training_task.preparations[table.kind].prepare(self.config.store, options)
        except Exception as error:
            failure = f"{table.label}: {_to_line(error)}"
            _log.warning("The preparation failed: %s", failure)
            return table.fingerprint, failure
        path = self.directory.table(table.command, table.labels[0])
        last = read_record(path, TableRecord)
        seconds = last.seconds if last and last.fingerprint == summary["fingerprint"] else 0.0
        seconds += summary["seconds"] if summary["ok"] else 0.0
        write_record(path, TableRecord(fingerprint=summary["fingerprint"], seconds=seconds, summary=summary))
        return str(summary["fingerprint"]), ""

    def _run_trial(self, trial: Trial, tables: Mapping[TableKey, tuple[str, str]]) -> TrialResult:
        """Runs a trial, unless it is done, and writes its result."""
        fingerprints = {key: fingerprint for key, (fingerprint, _) in tables.items()}
        trained: dict[str, str] = {}
        path = self.directory.result(trial.name)
        try:
            trained = select_trained(trial, fingerprints)
            for _, failure in tables.values():
                if failure:
                    raise CaptError(failure)
            store = open_store(self.config.store)
            last = read_record(path, TrialResult)
            if last and is_done(last, self.config, trial, fingerprints, store):
                _log.info("The trial is already done.")
                return last
            result = self._train_and_evaluate(trial, fingerprints, store)
        except Exception as error:  # any error of a trial is recorded, and the next trial runs
            _log.debug("the trial failed", exc_info=True)
            reason = _to_line(error)
            result = TrialResult(trial=trial.name, status="failed", identity="", reason=reason, tables=trained)
            _log.warning("Trial %s failed: %s", trial.name, reason)
        write_record(path, result)
        return result

    def _train_and_evaluate(self, trial: Trial, fingerprints: Mapping[TableKey, str], store: Store) -> TrialResult:
        # Keras takes seconds to import. An invalid file and a finished experiment do not need it.
        from features.runtime.keras_settings import keras

        run_dir, task = self.directory.run(trial.name), self.config.training_task
        identity, tables = identify_trial(self.config, trial, fingerprints, store), select_trained(trial, fingerprints)
        try:
            trained = self._train(trial, tables, store)
            started = time.monotonic()
            evaluated = evaluate_run(store.path, run_dir, evaluation_options(self.config, trial, fingerprints))
            del evaluated["runs"]  # repeats the metrics of the single run
            evaluation_seconds = round(time.monotonic() - started, 3)
        finally:
            keras.utils.clear_session()
        files = [path.stat() for path in run_dir.rglob("*") if path.is_file()]
        result = TrialResult(
            trial=trial.name,
            status="done",
            identity=identity,
            tables=tables,
            trained=trained,
            evaluated=evaluated,
            # Interruptions do not count.
            seconds={
                "training": round(sum(row["seconds"] + (row["val_seconds"] or 0) for row in read_epochs(run_dir)), 3),
                "evaluation": evaluation_seconds,
            },
            bytes=sum(file.st_size for file in files if file.st_nlink == 1),  # others are hard links to the store
        )
        position = {MODELS if axis == MODEL else axis: value for axis, value in trial.position.items()}
        settings = {**position, **task.settings(trial.options)}
        _write_trial_summary(run_dir / LOGS, trial.name, settings, task.task.read_scores(evaluated))
        return result

    def _train(self, trial: Trial, tables: Mapping[str, str], store: Store) -> dict[str, Any]:
        run_dir, task = self.directory.run(trial.name), self.config.training_task
        try:
            return task.train(store.path, run_dir, trial.options, tables, trial.datasets)
        except StoreError as error:
            if error.location != str(run_dir):
                raise
            # The directory contains a run with other settings or data. An experiment has no --run-dir to change.
            hint = f"Rename the model in the experiment file, or delete {run_dir}."
            raise StoreError(error.message, location=error.location, hint=hint) from None


def _to_line(error: Exception) -> str:
    if isinstance(error, CaptError):
        return str(error)
    return f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:500]}"


def _write_trial_summary(logs: Path, trial: str, settings: Mapping[str, Any], scores: Mapping[str, Score]) -> None:
    """Replaces the hyperparameters and scores of a trial for TensorBoard, next to the curves of its training."""
    import tensorflow as tf
    from tensorboard.plugins.hparams import api

    for path in logs.glob("events.*"):
        path.unlink()
    values = {
        name: value if isinstance(value, (bool, int, float, str)) else str(value) for name, value in settings.items()
    }
    writer = tf.summary.create_file_writer(str(logs))
    with writer.as_default():
        api.hparams(values, trial_id=trial)
        for name, score in scores.items():
            tf.summary.scalar(name, score.value, step=0)
    writer.close()
