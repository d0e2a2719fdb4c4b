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
from workflows.experiments.config import DATASET, MODEL, SEED, ExperimentConfig, TrialFilter
from workflows.experiments.records import (
    CAPTIONS,
    ExperimentDirectory,
    ExperimentRecord,
    TableKey,
    Trial,
    TrialResult,
    read_record,
)
from workflows.prepared_tasks import check_same_table, errors_in, files_named

# Options that do not apply to a table with the vocabulary of another one.
_BUILT_VOCABULARY = ("vocab_size", "min_count")

State = Literal["done", "incomplete", "pending"]


@dataclass(frozen=True)
class PlannedTable:
    """A table that trials need, with the result of the dry run of its preparation.

    Args:
        command: Key in the experiment file and command of `capt prepare`.
        keys: Its keys; equal tables of one dataset share one entry.
        labels: The keys in words.
        summary: Result of the dry run. The fingerprint is empty while the vocabulary that it reuses does not exist.
    """

    command: str
    keys: tuple[TableKey, ...]
    labels: tuple[str, ...]
    summary: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """Key of `PreparedTask.preparations`."""
        return self.keys[0].kind

    @property
    def dataset(self) -> str:
        """Name of its dataset in the store."""
        return self.keys[0].dataset

    @property
    def vocabulary(self) -> str:
        """Dataset whose vocabulary its captions have; empty for their own."""
        return self.keys[0].vocabulary

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the experiment file."""
        return tuple(key.name for key in self.keys)

    @property
    def fingerprint(self) -> str:
        return str(self.summary["fingerprint"])

    @property
    def label(self) -> str:
        fingerprint = f" ({self.fingerprint[:SHORT_FINGERPRINT]})" if self.fingerprint else ""
        return f"{self.command} {', '.join(self.labels)}{fingerprint}"


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

    def list_users(self, table: PlannedTable) -> list[Trial]:
        """Lists the trials that need a table."""
        return [trial for trial in self.record.trials if _is_needed(table, self.record.config, trial)]

    def to_dict(self) -> dict[str, Any]:
        """Returns the values for JSON."""
        states = [planned.state for planned in self.trials]
        return {
            "tables": [
                {
                    "kind": table.command,
                    "names": list(table.names),
                    "labels": list(table.labels),
                    "dataset": table.dataset,
                    "vocabulary_of": table.vocabulary or None,
                    "fingerprint": table.fingerprint or None,
                    **{name: table.summary[name] for name in ("hits", "misses", "failed")},
                    **{name: table.summary.get(name) for name in ("bytes", "estimated_seconds", "shape")},
                    "trials": [trial.name for trial in self.list_users(table)],
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
        UsageError: A model cannot be trained on a table of its trials, or a trial needs several feature tables. The
            error names the trials.
        CaptError: The dry run of a preparation failed.
    """
    record = build_grid(config, location)
    tables = _plan_tables(config, record.trials)
    _check_same_tables(config, record.trials, tables, location)
    _check_shapes(config, record.trials, tables, location)
    directory = ExperimentDirectory(local_path(config.output_dir, "output_dir").absolute())
    store = open_store_if_exists(config.store)

    def plan_trial(trial: Trial) -> PlannedTrial:
        used = [table for table in tables if _is_needed(table, config, trial)]
        result = read_record(directory.result(trial.name), TrialResult)
        if result and store and not any(table.summary["misses"] for table in used):
            fingerprints = {key: table.fingerprint for table in used for key in table.keys}
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


def list_tables(config: ExperimentConfig, trial: Trial) -> tuple[TableKey, ...]:
    """Lists the tables that a trial needs: those of its training, and those of the other datasets for its scores."""
    others = [name for name in config.sources if name not in trial.datasets]
    scored = [TableKey(kind=kind, name=name, dataset=other) for kind, name in trial.tables.items() for other in others]
    return (*trial.trained_tables, *scored)


def select_trained(trial: Trial, fingerprints: Mapping[TableKey, str]) -> dict[str, str]:
    """Returns the fingerprints of the tables to train on, by key of `PreparedTask.preparations`.

    `fingerprints` are those of the tables that the trial needs, also for its scores.
    A caption table is that of the first dataset. Those of the others follow from it, because they have its vocabulary.

    Raises:
        UsageError: The features of the datasets are in different tables.
    """
    features = [key for key in fingerprints if key.kind != CAPTIONS and key.name == trial.tables[key.kind]]
    check_same_table([{"dataset": key.dataset, "fingerprint": fingerprints[key]} for key in features])
    first = [key for key in trial.trained_tables if key.dataset == trial.datasets[0]]
    return {key.kind: fingerprints[key] for key in first}


def evaluation_options(config: ExperimentConfig, trial: Trial, fingerprints: Mapping[TableKey, str]) -> dict[str, Any]:
    """Returns the options of `capt evaluate`: with several datasets, all of them and their caption tables."""
    if not config.datasets:
        return dict(config.evaluate)
    keys = [key for key in list_tables(config, trial) if key.kind == CAPTIONS]
    tables = {key.dataset: fingerprints[key] for key in keys}
    captions = {"caption_table": [tables[name] for name in config.sources]} if tables else {}
    return {**config.evaluate, "dataset": list(config.sources), **captions}


def identify_trial(config: ExperimentConfig, trial: Trial, fingerprints: Mapping[TableKey, str], store: Store) -> str:
    """Returns a digest of all inputs that determine the scores of a trial.

    `fingerprints` are those of all its prepared tables.
    """
    keys = list_tables(config, trial)
    data = [store.dataset(name).digest for name in dict.fromkeys(key.dataset for key in keys)]
    for key in keys:
        if key.kind == CAPTIONS:
            data += [manifest.digest for manifest in store.caption_table(fingerprints[key]).manifests]
    training = config.training_task.effective(trial.options)
    files = [files_named(training), files_named(config.evaluate)]
    evaluated = evaluation_options(config, trial, fingerprints)
    datasets = [list(trial.datasets)] if config.datasets else []
    trained = select_trained(trial, fingerprints)
    return compute_digest([config.task, training, trained, evaluated, data, files, *datasets])


def is_done(
    result: TrialResult, config: ExperimentConfig, trial: Trial, fingerprints: Mapping[TableKey, str], store: Store
) -> bool:
    """Returns whether a result is final: another run of the trial would have the same scores."""
    try:
        return result.status == "done" and result.identity == identify_trial(config, trial, fingerprints, store)
    except StoreError:  # a dataset or its captions were removed
        return False


def preparation_options(
    config: ExperimentConfig, key: TableKey, fingerprints: Mapping[TableKey, str]
) -> dict[str, Any] | None:
    """Returns the options that prepare a table; None while the vocabulary that it reuses does not exist."""
    options = config.preparation_options(key.kind, key.name, key.dataset)
    if not key.vocabulary:
        return options
    source = fingerprints.get(key.model_copy(update={"dataset": key.vocabulary, "vocabulary": ""}))
    if not source:
        return None
    built = {name: value for name, value in options.items() if name not in _BUILT_VOCABULARY}
    return {**built, "vocab_from": source}


def _is_needed(table: PlannedTable, config: ExperimentConfig, trial: Trial) -> bool:
    return not set(table.keys).isdisjoint(list_tables(config, trial))


def _plan_tables(config: ExperimentConfig, trials: tuple[Trial, ...]) -> tuple[PlannedTable, ...]:
    """Plans each table that a trial needs once: by kind, and those that reuse a vocabulary last."""
    kinds = list(config.training_task.preparations)
    keys = dict.fromkeys(key for trial in trials for key in list_tables(config, trial))
    tables: dict[tuple[str, ...], PlannedTable] = {}
    summaries: dict[tuple[str, bytes], Mapping[str, Any]] = {}
    existing: dict[TableKey, str] = {}
    for key in sorted(keys, key=lambda key: (kinds.index(key.kind), bool(key.vocabulary))):
        summary = _plan_preparation(config, key, existing, summaries)
        if not summary["misses"]:
            existing[key] = str(summary["fingerprint"])
        fingerprint = str(summary["fingerprint"])
        group = (key.kind, key.dataset, fingerprint or f"{key.name} {key.vocabulary}")
        known, label = tables.get(group), config.label_table(key.name, key.dataset, key.vocabulary)
        table = known or PlannedTable(config.training_task.preparations[key.kind].command, (), (), summary)
        tables[group] = replace(table, keys=(*table.keys, key), labels=(*table.labels, label))
    return tuple(tables.values())


def _plan_preparation(
    config: ExperimentConfig,
    key: TableKey,
    existing: Mapping[TableKey, str],
    summaries: dict[tuple[str, bytes], Mapping[str, Any]],
) -> Mapping[str, Any]:
    """Returns the result of the dry run of a preparation; equal ones run once."""
    options = preparation_options(config, key, existing)
    wanted = config.preparation_options(key.kind, key.name, key.dataset) if options is None else options
    group = (key.kind, canonical_json(wanted))
    if group not in summaries:
        summaries[group] = config.training_task.preparations[key.kind].prepare(config.store, wanted, dry_run=True)
    summary = summaries[group]
    if options is None:  # the table cannot be in the store, because its vocabulary is not
        return {**summary, "fingerprint": "", "hits": 0, "misses": summary["hits"] + summary["misses"]}
    return summary


def _check_same_tables(
    config: ExperimentConfig, trials: tuple[Trial, ...], tables: tuple[PlannedTable, ...], location: str
) -> None:
    """Checks that the datasets that a trial is trained or evaluated on have one feature table."""
    summaries = {key: table.summary for table in tables for key in table.keys if key.kind != CAPTIONS}
    for trial in trials:
        with errors_in(f"{location}: trial {trial.name}"):
            check_same_table([summaries[key] for key in list_tables(config, trial) if key.kind != CAPTIONS])


def _check_shapes(
    config: ExperimentConfig, trials: tuple[Trial, ...], tables: tuple[PlannedTable, ...], location: str
) -> None:
    """Checks that every model can read the features of its trials, as far as their shape is known."""
    errors: dict[str, tuple[Trial, UsageError]] = {}
    for trial, table in itertools.product(trials, tables):
        shape = table.summary.get("shape")
        if shape and _is_needed(table, config, trial):
            try:
                config.training_task.check_shape(trial.options, tuple(shape), "/".join(dict.fromkeys(table.names)))
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
        datasets=config.training_datasets(str(position[DATASET]) if DATASET in position else None),
    )


def _matches(trial: Trial, one: TrialFilter) -> bool:
    return all(trial.position[axis] in values for axis, values in one.items())
