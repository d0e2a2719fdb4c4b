"""Plans an experiment: its trials, which tables are missing, and which trials are done, incomplete or pending."""

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from features.io.locations import local_path
from features.store import Store, open_store
from schemas.errors import StoreError, UsageError
from schemas.table_config import SHORT_FINGERPRINT, canonical_json, compute_digest
from trainer.runs.metadata import METADATA
from workflows.experiments.config import MODEL, SEED, ExperimentConfig, TrialFilter
from workflows.experiments.records import ExperimentDirectory, ExperimentRecord, Trial, TrialResult, read_record
from workflows.prepared_tasks import files_named

State = Literal["done", "incomplete", "pending"]


@dataclass(frozen=True)
class PlannedTable:
    """A table that trials are trained on, with the result of the dry run of its preparation.

    Args:
        kind: Key of `PreparedTask.preparations`.
        command: Key in the experiment file and command of `capt prepare`.
        names: Names in the experiment file. Names of equal tables share one entry.
    """

    kind: str
    command: str
    names: tuple[str, ...]
    summary: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        return str(self.summary["fingerprint"])

    @property
    def label(self) -> str:
        return f"{self.command} {', '.join(self.names)} ({self.fingerprint[:SHORT_FINGERPRINT]})"

    def is_used_by(self, trial: Trial) -> bool:
        """Returns whether the trial is trained on this table."""
        return trial.tables[self.kind] in self.names


@dataclass(frozen=True)
class PlannedTrial:
    """A trial, its state, and the reason of its last failure."""

    trial: Trial
    state: State
    last_failure: str = ""


@dataclass(frozen=True)
class ExperimentPlan:
    """The work of an experiment: tables in the order of their preparation, trials in the order of their training."""

    record: ExperimentRecord
    tables: tuple[PlannedTable, ...]
    trials: tuple[PlannedTrial, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns the values for JSON."""
        states = [planned.state for planned in self.trials]
        return {
            "tables": [
                {
                    "kind": table.command,
                    "names": list(table.names),
                    "fingerprint": table.fingerprint,
                    **{name: table.summary[name] for name in ("hits", "misses", "failed")},
                    **{name: table.summary.get(name) for name in ("bytes", "estimated_seconds", "shape")},
                    "trials": [trial.name for trial in self.record.trials if table.is_used_by(trial)],
                }
                for table in self.tables
            ],
            "trials": [
                {"trial": one.trial.name, "state": one.state, "last_failure": one.last_failure or None}
                for one in self.trials
            ],
            "excluded": list(self.record.excluded),
            **{state: states.count(state) for state in get_args(State)},
        }


def plan_experiment(config: ExperimentConfig, location: str) -> ExperimentPlan:
    """Plans an experiment; `location` names its file in errors. Writes nothing.

    Raises:
        UsageError: A model cannot be trained on a table of its trials. The error names the trials.
        CaptError: The dry run of a preparation failed.
    """
    record = build_grid(config, location)
    tables = _plan_tables(config, record.trials)
    _check_shapes(config, record.trials, tables, location)
    directory = ExperimentDirectory(local_path(config.output_dir, "output_dir").absolute())
    store = open_store_if_exists(config.store)

    def plan_trial(trial: Trial) -> PlannedTrial:
        used = [table for table in tables if table.is_used_by(trial)]
        result = read_record(directory.result(trial.name), TrialResult)
        if result and store and not any(table.summary["misses"] for table in used):
            fingerprints = {table.kind: table.fingerprint for table in used}
            if is_done(result, config, trial, fingerprints, store):
                return PlannedTrial(trial, "done")
        is_started = (directory.run(trial.name) / METADATA).exists()
        return PlannedTrial(trial, "incomplete" if is_started else "pending", result.reason if result else "")

    return ExperimentPlan(record, tables, tuple(map(plan_trial, record.trials)))


def open_store_if_exists(path: str) -> Store | None:
    """Opens a store; None if it does not exist."""
    try:
        return open_store(path)
    except StoreError:
        return None


def identify_trial(config: ExperimentConfig, trial: Trial, fingerprints: Mapping[str, str], store: Store) -> str:
    """Returns a digest of all inputs that determine the scores of a trial.

    `fingerprints` are those of its prepared tables by key of `PreparedTask.preparations`.
    """
    data = [store.dataset(config.dataset).digest]
    if "captions" in fingerprints:
        data += [manifest.digest for manifest in store.caption_table(fingerprints["captions"]).manifests]
    training = config.training_task.effective(trial.options)
    files = [files_named(training), files_named(config.evaluate)]
    return compute_digest([config.task, training, dict(fingerprints), config.evaluate, data, files])


def is_done(
    result: TrialResult, config: ExperimentConfig, trial: Trial, fingerprints: Mapping[str, str], store: Store
) -> bool:
    """Returns whether a result is final: another run of the trial would have the same scores."""
    try:
        return result.status == "done" and result.identity == identify_trial(config, trial, fingerprints, store)
    except StoreError:  # the dataset or its captions were removed
        return False


def _plan_tables(config: ExperimentConfig, trials: tuple[Trial, ...]) -> tuple[PlannedTable, ...]:
    """Plans each table that a trial needs once."""
    tables: dict[tuple[str, str], PlannedTable] = {}
    for kind, preparation in config.training_task.preparations.items():
        summaries: dict[bytes, Mapping[str, Any]] = {}
        for name in dict.fromkeys(trial.tables[kind] for trial in trials):
            options = config.preparation_options(kind, name)
            key = canonical_json(options)
            if key not in summaries:
                summaries[key] = preparation.prepare(config.store, options, dry_run=True)
            table = PlannedTable(kind, preparation.command, (name,), summaries[key])
            known = tables.get((kind, table.fingerprint))
            names = (*known.names, name) if known else (name,)
            tables[kind, table.fingerprint] = replace(table, names=names)
    return tuple(tables.values())


def _check_shapes(
    config: ExperimentConfig, trials: tuple[Trial, ...], tables: tuple[PlannedTable, ...], location: str
) -> None:
    """Checks that every model can read the features of its trials, as far as their shape is known."""
    errors: dict[str, tuple[Trial, UsageError]] = {}
    for trial, table in itertools.product(trials, tables):
        shape = table.summary.get("shape")
        if shape and table.is_used_by(trial):
            try:
                config.training_task.check_shape(trial.options, tuple(shape), "/".join(table.names))
            except UsageError as error:
                errors.setdefault(trial.name, (trial, error))
    if errors:
        axis = config.training_task.preparations["features"].command
        pairs = dict.fromkeys((trial.position[MODEL], trial.tables["features"]) for trial, _ in errors.values())
        filters = ", ".join(f"{{{MODEL}: {model}, {axis}: {table}}}" for model, table in pairs)
        _, first = next(iter(errors.values()))
        raise UsageError(
            f"{len(errors)} trials are impossible: {', '.join(errors)}; {first.location}: {first.message}",
            location=location,
            hint=f"Exclude them with `exclude: [{filters}]`, or use other features for the model.",
        )


# === Grid ===


def build_grid(config: ExperimentConfig, location: str) -> ExperimentRecord:
    """Builds the trials of an experiment; `location` names its file in errors.

    Raises UsageError if an entry of `exclude` matches no trial, all trials are excluded, or two trials have one name.
    """
    positions: list[tuple[tuple[str, str | int], ...]] = []
    for one in config.include or ({},):  # a missing axis matches all of its values
        axes = [[(axis, value) for value in one.get(axis, values)] for axis, values in config.axes.items()]
        positions += itertools.product(*axes)
    trials = [_build_trial(config, dict(position)) for position in dict.fromkeys(positions)]
    for number, one in enumerate(config.exclude, 1):
        if not any(_matches(trial, one) for trial in trials):
            entry = f"{location}: exclude, entry {number}"
            raise UsageError("the entry matches no trial", location=entry, hint="Remove the entry.")
    excluded = [trial for trial in trials if any(_matches(trial, one) for one in config.exclude)]
    kept = [trial for trial in trials if trial not in excluded]
    if not kept:
        raise UsageError("all trials are excluded", location=f"{location}: exclude")
    duplicates = [name for name, count in Counter(trial.name for trial in kept).items() if count > 1]
    if duplicates:
        hint = "Remove the dashes from the names of models and tables."
        raise UsageError(f"two trials have the name {duplicates[0]}", location=location, hint=hint)
    return ExperimentRecord(config=config, trials=tuple(kept), excluded=tuple(trial.name for trial in excluded))


def _build_trial(config: ExperimentConfig, position: Mapping[str, str | int]) -> Trial:
    preparations = config.training_task.preparations.items()
    return Trial(
        name="-".join(f"seed{value}" if axis == SEED else str(value) for axis, value in position.items()),
        position=dict(position),
        tables={kind: str(position[preparation.command]) for kind, preparation in preparations},
        options=config.training_options(str(position[MODEL]), int(position[SEED])),
    )


def _matches(trial: Trial, one: TrialFilter) -> bool:
    return all(trial.position[axis] in values for axis, values in one.items())
