"""`capt experiment report`: what an experiment found out, on one page that reads the same from a mail or a stick."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from features.io.atomic_files import write
from features.io.locations import local_path
from features.store import Store, open_store
from schemas.errors import CaptError, StoreError, UsageError
from schemas.options.workflows import ExperimentReport
from schemas.table_config import SHORT_FINGERPRINT
from schemas.terminal.console import Printer
from workflows.experiments.caption_comparison import side_by_side
from workflows.experiments.comparison import TrialComparison, compare
from workflows.experiments.config import ExperimentConfig
from workflows.experiments.curves import curves_picture, read_epochs
from workflows.experiments.differences import list_settings
from workflows.experiments.records import (
    ExperimentRecord,
    RunLocation,
    TableRecord,
    TrialRecord,
    TrialResult,
    read_result,
)
from workflows.experiments.records import read_results as kept_results
from workflows.experiments.report_page import (
    ExperimentPage,
    TableCost,
    TrialEntry,
    experiment_page,
    hundredths,
    is_certain,
)
from workflows.tasks import Score


def report_experiment(options: ExperimentReport) -> dict[str, Any]:
    """Write the page of an experiment: scores, learning curves, costs, captions side by side, and what differs.

    It may be written at any time, also while the experiment runs: trials without scores are said to have none.

    Args:
        options: The experiment's directory, and the page.

    Returns:
        `experiment` and `page` (paths); `trials`, for each: `trial`, `state` (`done`, `failed`, `not run yet`),
        `reason`, `scores` and `intervals` by name, `seconds` and `bytes`; `done`, `failed` and `not_run`, how many;
        `best`, the trial with the best telling score, or null, and `not_certainly_worse`, those that a paired bootstrap
        does not tell from it; `notes`, what a reader must know.

    Raises:
        UsageError: the output is a directory.
        StoreError: there is no experiment, or what it kept cannot be read.
        CaptError: the page cannot be written.
    """
    place = RunLocation(local_path(options.directory).absolute())
    path = local_path(options.output, "--output") if options.output else place.report
    _check(path)
    record = read_result(place.experiment, ExperimentRecord)
    if record is None:
        raise StoreError(
            "no experiment is here", location=options.directory, hint="run one with `capt experiment run FILE`"
        )
    results = kept_results(place, record.trials)
    store = _store(record.definition)
    page = _page(place, record, results, store, options.num_images)
    try:
        write(path, experiment_page(page).encode())
    except OSError as error:
        raise CaptError(f"the page cannot be written: {error.strerror}", location=str(path)) from None
    states = [trial.state for trial in page.trials]
    return {
        "experiment": str(place.root),
        "page": str(path),
        "trials": [_figures(trial) for trial in page.trials],
        "done": states.count("done"),
        "failed": states.count("failed"),
        "not_run": states.count("not run yet"),
        "best": page.trials[0].name if page.trials[0].scores else None,
        "not_certainly_worse": _near(page.trials, page.comparison) if page.trials[0].scores else [],
        "notes": list(page.notices),
    }


def print_report(result: Mapping[str, Any]) -> None:
    """Print what `report_experiment` returned: where the page is, and what came of the experiment."""
    printer = Printer()
    counts = f"{result['done']} trials done, {result['failed']} failed, {result['not_run']} not run yet"
    printer.line(f"{counts}; best: {result['best'] or 'none'}")
    printer.line(result["page"])


def _check(path: Path) -> None:
    if path.is_dir():
        raise UsageError("this is a directory", location=f"--output {path}", hint="Choose a file, such as page.html.")


def _store(definition: ExperimentConfig) -> Store | None:
    try:
        return open_store(definition.store)
    except StoreError:
        return None


def _figures(trial: TrialEntry) -> dict[str, Any]:
    scores = trial.scores or {}
    return {
        "trial": trial.name,
        "state": trial.state,
        "reason": trial.reason or None,
        "scores": {name: score.value for name, score in scores.items()},
        "intervals": {name: score.interval for name, score in scores.items() if score.interval},
        "seconds": trial.seconds,
        "bytes": trial.bytes,
    }


def _page(
    place: RunLocation, record: ExperimentRecord, results: Mapping[str, TrialResult], store: Store | None, images: int
) -> ExperimentPage:
    definition = record.definition
    entries = [_entry(definition, trial, results.get(trial.name)) for trial in record.trials]
    telling = next(iter(definition.of_task.scores))
    ordered = _best_first(entries, telling)
    done = [results[trial.name] for trial in ordered if trial.state == "done"]
    comparison = compare(place, done, telling)
    best = _of(ordered[0], telling) if ordered[0].scores else None
    return ExperimentPage(
        title=f"{place.root.name}: {len(entries)} trials of {definition.dataset}",
        headline=_headline(ordered, comparison, definition.of_task.scores[telling], best),
        notices=_notices(definition, done, store),
        figures=_tiles(entries, record),
        titles=definition.of_task.scores,
        comparison=comparison,
        trials=ordered,
        curves=curves_picture({trial.name: read_epochs(place.run(trial.name)) for trial in ordered}),
        tables=_tables(place, record, store),
        seen=side_by_side(definition, place, done, store, images),
    )


def _entry(definition: ExperimentConfig, trial: TrialRecord, result: TrialResult | None) -> TrialEntry:
    settings = list_settings(definition, trial)
    if result is None:
        return TrialEntry(trial.name, settings, "not run yet")
    if result.status == "failed":
        return TrialEntry(trial.name, settings, "failed", result.reason)
    return TrialEntry(
        name=trial.name,
        settings=settings,
        state="done",
        scores=definition.of_task.scored(result.evaluated),
        images=result.evaluated["images"],
        epochs=result.trained["epochs"],
        best_epoch=result.trained["best_epoch"],
        seconds=result.seconds,
        bytes=result.bytes,
    )


def _best_first(entries: Sequence[TrialEntry], telling: str) -> list[TrialEntry]:
    scored = [entry for entry in entries if entry.scores]
    others = [entry for entry in entries if not entry.scores]
    return sorted(scored, key=lambda entry: -_of(entry, telling).value) + others


def _of(entry: TrialEntry, name: str) -> Score:
    assert entry.scores is not None
    return entry.scores[name]


def _headline(trials: Sequence[TrialEntry], comparison: TrialComparison, title: str, best: Score | None) -> str:
    if best is None:
        return "No trial has a score yet."
    told = f"Best in {title}: {trials[0].name}, {hundredths(best)}."
    near = _near(trials, comparison)
    return f"{told} Not certain to be worse: {', '.join(near) or 'none'}."


def _near(trials: Sequence[TrialEntry], comparison: TrialComparison) -> list[str]:
    """Names of the trials that the first, the best, does not score more than for certain."""
    against = {each.name: comparison.difference(trials[0].name, each.name) for each in trials[1:] if each.scores}
    return [name for name, difference in against.items() if difference is None or not is_certain(difference)]


def _notices(definition: ExperimentConfig, done: Sequence[TrialResult], store: Store | None) -> list[str]:
    notes = [note.removeprefix(f"{result.evaluated['run']}: ") for result in done for note in result.evaluated["notes"]]
    if len({result.evaluated["scored_on"] for result in done}) > 1:
        notes.append("The trials were scored on different images or references, so their scores do not compare.")
    if store is None:
        notes.append(f"The store is not at {definition.store} any more, so images and references are not shown.")
    return list(dict.fromkeys(notes))


def _tiles(entries: Sequence[TrialEntry], record: ExperimentRecord) -> dict[str, object]:
    states = [entry.state for entry in entries]
    counts = {state: states.count(state) for state in ("done", "failed", "not run yet")}
    shown = {label: f"{count:,}" for label, count in counts.items() if count}
    return {**shown, **({"skipped": f"{len(record.skipped):,}"} if record.skipped else {})}


def _tables(place: RunLocation, record: ExperimentRecord, store: Store | None) -> list[TableCost]:
    costs = []
    for kind, preparation in record.definition.of_task.preparations.items():
        for name in dict.fromkeys(trial.tables[kind] for trial in record.trials):
            made = read_result(place.table(preparation.command, name), TableRecord)
            if made:
                trials = sum(trial.tables[kind] == name for trial in record.trials)
                costs.append(_cost(preparation.command, name, made, trials, store))
    return costs


def _cost(kind: str, name: str, made: TableRecord, trials: int, store: Store | None) -> TableCost:
    try:
        opened: Any = None
        if store:
            opened = (
                store.caption_table(made.fingerprint) if kind == "captions" else store.feature_table(made.fingerprint)
            )
    except StoreError:
        opened = None
    return TableCost(
        kind=kind,
        name=name,
        fingerprint=made.fingerprint[:SHORT_FINGERPRINT],
        trials=trials,
        rows=sum(shard.rows for shard in opened.shards) if opened else None,
        bytes=opened.bytes if opened else None,
        seconds=made.seconds,
    )
