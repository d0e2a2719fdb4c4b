"""`capt experiment run`: tables prepared once, every trial trained and scored; what is done is not done again."""

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from features.io import locations
from features.store import Store, open_store
from schemas.errors import CaptError, StoreError
from schemas.options.workflows import ExperimentRun
from schemas.table_config import SHORT_FINGERPRINT
from schemas.terminal.console import Printer
from trainer.runs.directory import lock_run
from workflows.experiments.config import MODEL, ExperimentConfig, read_experiment_config
from workflows.experiments.costs import measure_bytes, training_seconds
from workflows.experiments.grid import Trial
from workflows.experiments.planning import (
    Plan,
    PlannedTable,
    described,
    figures_of,
    identify_trial,
    is_done,
    plan_experiment,
)
from workflows.experiments.records import (
    ExperimentRecord,
    RunLocation,
    TableRecord,
    TrialRecord,
    TrialResult,
    read_result,
    write_result,
)
from workflows.tasks import evaluate_run, task_of

# What TensorBoard calls the names that the file gives to models; `model` is what they are.
MODELS = "models"
_OF_TABLES = ("trials", "hits", "misses", "MB to add", "seconds")

_log = logging.getLogger("capt.experiment")


def run_experiment(options: ExperimentRun) -> dict[str, Any]:
    """Run what is left of an experiment: its tables, then its trials; a trial that fails costs no other.

    Args:
        options: The YAML file that defines it; see docs/experiments.md.

    Returns:
        `experiment`, `task`, `store` and `out`; `tables`, for each: `kind`, `names`, `fingerprint`, `hits`, `misses`,
        `failed`, `bytes`, `estimated_seconds`, `shape` and `trials` that learn from it, all before anything was done;
        `trials`, for each: `trial`, `state` (`done`, `to resume`, `to do`) and `failed_last`, why it failed the last
        time, or null; `skipped`; `done`, `to_resume` and `to_do`, how many. Unless this is a plan, the trials' states
        are those afterwards, `done` or `failed`, with `reason` or `scores`; `failed`, their names; and `seconds`.

    Raises:
        UsageError: the file is wrong, or a model cannot learn from a table of its trials.
        LockedError: another process runs an experiment in this directory.
        CaptError: trials failed; the figures say which, and why.
    """
    started = time.monotonic()
    file = options.file
    definition = read_experiment_config(file)
    place = RunLocation(locations.local_path(definition.out, "out").absolute())
    said = {
        "experiment": file,
        "task": definition.task,
        "store": str(locations.parse_location(definition.store)),
        "out": str(place.root),
    }
    if options.dry_run:
        return {**said, "dry_run": True, **figures_of(plan_experiment(definition, file))}
    with lock_run(place.root):
        planned = plan_experiment(definition, file)
        _say(planned)
        run = _Run(definition, place, planned)
        results = run.run()
    result = {**said, **figures_of(planned), **_figures(definition, planned, results)}
    result["seconds"] = round(time.monotonic() - started, 3)
    if result["failed"]:
        reasons = "; ".join(f"{name}: {results[name].reason}" for name in result["failed"][:3])
        raise CaptError(
            f"{len(result['failed'])} of {len(results)} trials failed: {reasons}",
            location=file,
            hint="the same command tries them again, and leaves the others as they are",
            summary=result,
        )
    return result


def print_experiment(result: Mapping[str, Any]) -> None:
    """Print what `run_experiment` returned: the tables, and the trials with their states or scores."""
    printer = Printer()
    printer.table("tables", ("table", "fingerprint"), _OF_TABLES, [_table_row(table) for table in result["tables"]])
    if "dry_run" in result:
        rows = [[each["trial"], each["state"], each["failed_last"] or ""] for each in result["trials"]]
        printer.table("trials", ("trial", "state", "failed the last time"), (), rows)
        counts = f"{result['done']} done, {result['to_resume']} to resume, {result['to_do']} to do"
        printer.line(f"{counts}, {len(result['skipped'])} skipped")
        return
    titles = task_of(result["task"]).scores
    rows = [[each["trial"], *_hundredths(each["scores"], titles)] for each in result["trials"]]
    printer.table("scores × 100", ("trial",), tuple(titles.values()), rows)
    printer.line(f"a page of it: capt experiment report {result['out']}")


def _table_row(table: Mapping[str, Any]) -> list[Any]:
    added, seconds = table["bytes"], table["estimated_seconds"]
    return [
        f"{table['kind']}: {', '.join(table['names'])}",
        table["fingerprint"][:SHORT_FINGERPRINT],
        len(table["trials"]),
        table["hits"],
        table["misses"],
        None if added is None else f"{added / 1e6:,.1f}",
        None if seconds is None else f"{seconds:,.0f}",
    ]


def _hundredths(scores: Mapping[str, float], names: Iterable[str]) -> list[str | None]:
    return [f"{100 * scores[name]:.1f}" if name in scores else None for name in names]


def _say(plan: Plan) -> None:
    for table in plan.tables:
        figures, trials = table.figures, sum(table.is_of(planned.trial) for planned in plan.trials)
        seconds = figures.get("estimated_seconds")
        about = f", about {seconds:.0f} s" if seconds and figures["misses"] else ""
        _log.info("%s: %d to make%s; for %d trials", described(table), figures["misses"], about, trials)
    states = [planned.state for planned in plan.trials]
    _log.info("trials: %s", ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states)))


def _figures(definition: ExperimentConfig, plan: Plan, results: Mapping[str, TrialResult]) -> dict[str, Any]:
    """What became of the trials."""
    told = []
    for planned in plan.trials:
        result = results[planned.trial.name]
        found = definition.of_task.scored(result.evaluated) if result.status == "done" else {}
        scores = {name: found[name].value for name in definition.of_task.scores if name in found}
        told.append({"trial": result.trial, "state": result.status, "reason": result.reason or None, "scores": scores})
    states = [each["state"] for each in told]
    return {
        "trials": told,
        "failed": [each["trial"] for each in told if each["state"] == "failed"],
        "done": states.count("done"),
        "to_resume": 0,
        "to_do": 0,
    }


@dataclass(frozen=True)
class _Prepared:
    """A table that is ready: its fingerprint; or why it is not, in a line."""

    fingerprint: str
    reason: str = ""


@dataclass(frozen=True)
class _Run:
    """One go at an experiment.

    Args:
        definition: Definition. What its file says.
        place: Place. Its directory, locked.
        plan: Plan. What there is to do.
    """

    definition: ExperimentConfig
    place: RunLocation
    plan: Plan

    def run(self) -> dict[str, TrialResult]:
        """Prepare what is missing and run what is left; what became of every trial, by name."""
        trials = [planned.trial for planned in self.plan.trials]
        records = tuple(
            TrialRecord(name=one.name, at=dict(one.at), tables=dict(one.tables), options=dict(one.options))
            for one in trials
        )
        said = ExperimentRecord(definition=self.definition, trials=records, skipped=self.plan.skipped)
        write_result(self.place.experiment, said)
        prepared: dict[tuple[str, str], _Prepared] = {}
        for table in self.plan.tables:
            ready = self._prepare(table)
            prepared |= {(table.kind, name): ready for name in table.names}
        results = {}
        for number, trial in enumerate(trials, 1):
            _log.info("trial %d of %d: %s", number, len(trials), trial.name)
            own = {kind: prepared[kind, name] for kind, name in trial.tables.items()}
            results[trial.name] = self._trial(trial, own)
        return results

    def _prepare(self, table: PlannedTable) -> _Prepared:
        """Prepare a table, once for all its names; a job that fails costs only the trials that learn from it."""
        _log.info("preparing %s", described(table))
        name = table.names[0]
        try:
            preparation = self.definition.of_task.preparations[table.kind]
            figures = preparation.prepare(self.definition.store, self.definition.preparing(table.kind, name))
        except Exception as error:
            reason = f"{described(table)}: {_told(error)}"
            _log.warning("preparing failed: %s", reason)
            return _Prepared(table.fingerprint, reason)
        path = self.place.table(table.section, name)
        last = read_result(path, TableRecord)
        before = last.seconds if last and last.fingerprint == figures["fingerprint"] else 0.0
        seconds = before + (figures["seconds"] if figures["ok"] else 0.0)
        write_result(path, TableRecord(fingerprint=figures["fingerprint"], seconds=seconds, figures=figures))
        return _Prepared(str(figures["fingerprint"]))

    def _trial(self, trial: Trial, tables: Mapping[str, _Prepared]) -> TrialResult:
        """Run a trial, unless it is done; what became of it."""
        fingerprints = {kind: table.fingerprint for kind, table in tables.items()}
        path = self.place.result(trial.name)
        try:
            for table in tables.values():
                if table.reason:
                    raise CaptError(table.reason)
            store = open_store(self.definition.store)
            last = read_result(path, TrialResult)
            if last and is_done(last, self.definition, trial, fingerprints, store):
                _log.info("done already")
                return last
            result = self._learn(trial, fingerprints, store)
        except Exception as error:  # whatever stops one trial does not stop the others
            _log.debug("the trial failed", exc_info=True)
            result = TrialResult(
                trial=trial.name, status="failed", identity="", reason=_told(error), tables=fingerprints
            )
            _log.warning("%s failed: %s", trial.name, result.reason)
        write_result(path, result)
        return result

    def _learn(self, trial: Trial, fingerprints: Mapping[str, str], store: Store) -> TrialResult:
        # Keras takes seconds to import, which neither a wrong file nor an experiment that is done waits for.
        from features.runtime.keras_settings import keras
        from workflows.experiments.tensorboard import write_trial_summary

        root, task = self.place.run(trial.name), self.definition.of_task
        identity = identify_trial(self.definition, trial, fingerprints, store)
        try:
            trained = self._train(trial, fingerprints, store)
            started = time.monotonic()
            evaluated = evaluate_run(store.path, root, self.definition.evaluate)
            del evaluated["runs"]  # stands beside it
        finally:
            keras.utils.clear_session()
        result = TrialResult(
            trial=trial.name,
            status="done",
            identity=identity,
            tables=dict(fingerprints),
            trained=trained,
            evaluated=evaluated,
            seconds={
                "training": training_seconds(root),
                "evaluation": round(time.monotonic() - started, 3),
            },
            bytes=measure_bytes(root),
        )
        named = {MODELS if axis == MODEL else axis: name for axis, name in trial.at.items()}
        settings = {**named, **task.settings(trial.options)}
        write_trial_summary(root, trial.name, settings, task.scored(evaluated))
        return result

    def _train(self, trial: Trial, fingerprints: Mapping[str, str], store: Store) -> dict[str, Any]:
        root, task = self.place.run(trial.name), self.definition.of_task
        try:
            return task.train(store.path, root, trial.options, fingerprints, [self.definition.dataset])
        except StoreError as error:
            if error.location != str(root):
                raise
            # It was begun with other settings or data: what `capt train` would mend with --run-dir is a name here.
            hint = f"call its model otherwise in the file, or delete {root}"
            raise StoreError(error.message, location=error.location, hint=hint) from None


def _told(error: Exception) -> str:
    """An error in one line."""
    if isinstance(error, CaptError):
        return str(error)
    return f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:500]}"
