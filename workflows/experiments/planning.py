"""Planning: what an experiment has to do, as far as that can be said before anything is done."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from features.io.locations import local_path
from features.store import Store, open_store
from schemas.errors import StoreError, UsageError
from schemas.table_config import SHORT_FINGERPRINT, canonical_json, compute_digest
from trainer.runs.metadata import RECORD
from workflows.experiments.config import MODEL, ExperimentConfig
from workflows.experiments.grid import Trial, build_grid
from workflows.experiments.records import RunLocation, TrialResult, read_result
from workflows.tasks import files_named

State = Literal["done", "to resume", "to do"]


@dataclass(frozen=True)
class PlannedTable:
    """A table that trials learn from.

    Args:
        kind: str. Of the task's preparations.
        section: str. What the file calls such tables.
        names: tuple of str. What the file calls it; several names that mean the same rows are one table.
        fingerprint: str. Of the table.
        figures: mapping. What the job's own plan says.
    """

    kind: str
    section: str
    names: tuple[str, ...]
    fingerprint: str
    figures: Mapping[str, Any]

    def is_of(self, trial: Trial) -> bool:
        """Whether the trial learns from it."""
        return trial.tables[self.kind] in self.names


@dataclass(frozen=True)
class PlannedTrial:
    """A trial, how far it is, and why it failed the last time, if it did."""

    trial: Trial
    state: State
    reason: str = ""


@dataclass(frozen=True)
class Plan:
    """What an experiment has to do.

    Args:
        tables: tuple of PlannedTable. In the order in which they are prepared.
        trials: tuple of Planned. In the order in which they are trained.
        skipped: tuple of str. Names of the trials that the file leaves out.
    """

    tables: tuple[PlannedTable, ...]
    trials: tuple[PlannedTrial, ...]
    skipped: tuple[str, ...]


def plan_experiment(definition: ExperimentConfig, location: str) -> Plan:
    """What an experiment has to do; changes nothing.

    Args:
        definition: Definition. What its file says.
        location: str. The file, for errors.

    Raises:
        UsageError: a model cannot learn from a table of its trials; the message names them.
        CaptError: a job's plan fails.
    """
    grid = build_grid(definition, location)
    tables = _tables(definition, grid.trials)
    _refuse_misfits(definition, grid.trials, tables, location)
    place, store = RunLocation(local_path(definition.out, "out").absolute()), _store(definition)
    planned = [_planned(definition, trial, tables, place, store) for trial in grid.trials]
    return Plan(tables, tuple(planned), grid.skipped)


def identify_trial(definition: ExperimentConfig, trial: Trial, fingerprints: Mapping[str, str], store: Store) -> str:
    """A digest of all that decides a trial's scores: options, the files they name, tables, and what these hold.

    Args:
        definition: Definition. The experiment.
        trial: Trial. The trial.
        fingerprints: mapping of str. Of its tables, by kind.
        store: Store. The store, prepared.
    """
    held = [store.dataset(definition.dataset).digest]
    if "captions" in fingerprints:
        held += [manifest.digest for manifest in store.caption_table(fingerprints["captions"]).manifests]
    files = [files_named(trial.options), files_named(definition.evaluate)]
    decides = [definition.task, trial.options, dict(fingerprints), definition.evaluate, held, files]
    return compute_digest(decides)


def is_done(
    result: TrialResult, definition: ExperimentConfig, trial: Trial, fingerprints: Mapping[str, str], store: Store
) -> bool:
    """Whether a result is what the trial would give again."""
    try:
        return result.status == "done" and result.identity == identify_trial(definition, trial, fingerprints, store)
    except StoreError:  # the dataset, or its captions, are there no more
        return False


def described(table: PlannedTable) -> str:
    """A table in a few words."""
    return f"{table.section} {', '.join(table.names)} ({table.fingerprint[:SHORT_FINGERPRINT]})"


def figures_of(plan: Plan) -> dict[str, Any]:
    """A plan as `--json` prints it."""
    states = [planned.state for planned in plan.trials]
    return {
        "tables": [_table_figures(table, plan) for table in plan.tables],
        "trials": [
            {"trial": planned.trial.name, "state": planned.state, "failed_last": planned.reason or None}
            for planned in plan.trials
        ],
        "skipped": list(plan.skipped),
        "done": states.count("done"),
        "to_resume": states.count("to resume"),
        "to_do": states.count("to do"),
    }


def _table_figures(table: PlannedTable, plan: Plan) -> dict[str, Any]:
    figures = table.figures
    return {
        "kind": table.section,
        "names": list(table.names),
        "fingerprint": table.fingerprint,
        **{name: figures[name] for name in ("hits", "misses", "failed")},
        **{name: figures.get(name) for name in ("bytes", "estimated_seconds", "shape")},
        "trials": [planned.trial.name for planned in plan.trials if table.is_of(planned.trial)],
    }


def _tables(definition: ExperimentConfig, trials: tuple[Trial, ...]) -> tuple[PlannedTable, ...]:
    """The tables of the trials, each once; a table that no trial learns from is not prepared."""
    tables: dict[tuple[str, str], PlannedTable] = {}
    for kind, preparation in definition.of_task.preparations.items():
        known: dict[bytes, Mapping[str, Any]] = {}
        for name in dict.fromkeys(trial.tables[kind] for trial in trials):
            options = definition.preparing(kind, name)
            said = canonical_json(options)
            if said not in known:
                known[said] = preparation.prepare(definition.store, options, dry_run=True)
            figures = known[said]
            at = (kind, str(figures["fingerprint"]))
            names = (*tables[at].names, name) if at in tables else (name,)
            tables[at] = PlannedTable(kind, preparation.command, names, at[1], figures)
    return tuple(tables.values())


def _refuse_misfits(
    definition: ExperimentConfig, trials: tuple[Trial, ...], tables: tuple[PlannedTable, ...], location: str
) -> None:
    """UsageError where a model cannot read the features of its trials, naming all such trials."""
    wrong = {trial.name: (trial, error) for trial in trials if (error := _misfit(definition, trial, tables))}
    if wrong:
        axis = definition.of_task.preparations["features"].command
        pairs = dict.fromkeys((trial.at[MODEL], trial.tables["features"]) for trial, _ in wrong.values())
        rules = ", ".join(f"{{{MODEL}: {model}, {axis}: {features}}}" for model, features in pairs)
        _, first = next(iter(wrong.values()))
        raise UsageError(
            f"{len(wrong)} trials cannot be: {first.location}: {first.message}; they are {', '.join(wrong)}",
            location=location,
            hint=f"leave them out with `skip: [{rules}]`, or give the model such features",
        )


def _misfit(definition: ExperimentConfig, trial: Trial, tables: tuple[PlannedTable, ...]) -> UsageError | None:
    """Why the trial's model cannot read its features; None where it can, or where nobody knows their shape yet."""
    for table in tables:
        shape = table.figures.get("shape")
        if shape and table.is_of(trial):
            try:
                definition.of_task.check_shape(trial.options, tuple(shape), "/".join(table.names))
            except UsageError as error:
                return error
    return None


def _store(definition: ExperimentConfig) -> Store | None:
    try:
        return open_store(definition.store)
    except StoreError:
        return None


def _planned(
    definition: ExperimentConfig,
    trial: Trial,
    tables: tuple[PlannedTable, ...],
    place: RunLocation,
    store: Store | None,
) -> PlannedTrial:
    own = [table for table in tables if table.is_of(trial)]
    result = read_result(place.result(trial.name), TrialResult)
    if result and store and not any(table.figures["misses"] for table in own):
        fingerprints = {table.kind: table.fingerprint for table in own}
        if is_done(result, definition, trial, fingerprints, store):
            return PlannedTrial(trial, "done")
    is_begun = (place.run(trial.name) / RECORD).exists()
    return PlannedTrial(trial, "to resume" if is_begun else "to do", result.reason if result else "")
