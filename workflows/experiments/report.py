"""Writes the HTML report of an experiment."""

from collections.abc import Mapping, Sequence
from typing import Any

from features.io.atomic_files import write
from features.io.locations import local_path
from features.store import Store
from schemas.errors import CaptError, StoreError, UsageError
from schemas.options.workflows import ExperimentReport
from schemas.table_config import SHORT_FINGERPRINT
from schemas.terminal.console import Printer
from trainer.reports.plots import encode_figure
from workflows.experiments.caption_comparison import compare_predictions
from workflows.experiments.comparison import TrialComparison, compare_trials, list_settings
from workflows.experiments.config import ExperimentConfig
from workflows.experiments.curves import curves_figure
from workflows.experiments.planning import open_store_if_exists
from workflows.experiments.records import (
    ExperimentDirectory,
    ExperimentRecord,
    TableRecord,
    TrialRecord,
    TrialResult,
    read_epochs,
    read_record,
)
from workflows.experiments.report_page import (
    ExperimentPage,
    TableCost,
    TrialEntry,
    build_experiment_page,
    format_score,
    is_significant,
)

_STATES = ("done", "failed", "pending")


def report_experiment(options: ExperimentReport) -> dict[str, Any]:
    """Writes the page of an experiment. The experiment may still be running.

    Args:
        options: The experiment directory and the page.

    Returns:
        `experiment` and `page` (paths); `trials`, for each: `trial`, `state` (`done`, `failed`, `pending`), `reason`,
        `scores` and `intervals` by name, `seconds` and `bytes`; `done`, `failed` and `pending` (numbers of trials);
        `best`, the trial with the best primary metric, and `not_significantly_worse`, the trials whose paired
        difference from it is not significant; `notes`.

    Raises:
        UsageError: The output is a directory.
        StoreError: The directory has no experiment, or its records cannot be read.
        CaptError: The page cannot be written.
    """
    directory = ExperimentDirectory(local_path(options.directory).absolute())
    path = local_path(options.output, "--output") if options.output else directory.report
    if path.is_dir():
        raise UsageError("this is a directory", location=f"--output {path}", hint="Choose a file, such as page.html.")
    record = read_record(directory.experiment, ExperimentRecord)
    if record is None:
        hint = "Run one with `capt experiment run FILE`."
        raise StoreError("the directory has no experiment", location=options.directory, hint=hint)
    page = _collect_page(directory, record, options.num_images)
    try:
        write(path, build_experiment_page(page).encode())
    except OSError as error:
        raise CaptError(f"cannot write the page: {error.strerror}", location=str(path)) from None
    has_scores = bool(page.trials[0].scores)
    return {
        "experiment": str(directory.root),
        "page": str(path),
        "trials": [_to_dict(trial) for trial in page.trials],
        **_count_states(page.trials),
        "best": page.trials[0].name if has_scores else None,
        "not_significantly_worse": _list_close_trials(page.trials, page.comparison) if has_scores else [],
        "notes": list(page.notices),
    }


def print_report(result: Mapping[str, Any]) -> None:
    """Prints the result of `report_experiment`."""
    printer = Printer()
    counts = ", ".join(f"{result[state]} {state}" for state in _STATES)
    printer.line(f"trials: {counts}; best: {result['best'] or 'none'}")
    printer.line(result["page"])


def _to_dict(trial: TrialEntry) -> dict[str, Any]:
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


def _count_states(trials: Sequence[TrialEntry]) -> dict[str, int]:
    states = [trial.state for trial in trials]
    return {state: states.count(state) for state in _STATES}


def _collect_page(directory: ExperimentDirectory, record: ExperimentRecord, num_images: int) -> ExperimentPage:
    config = record.config
    titles = config.training_task.task.metrics
    metric = next(iter(titles))
    results, store = directory.read_results(record.trials), open_store_if_exists(config.store)
    trials = _sort_trials([_build_entry(config, trial, results.get(trial.name)) for trial in record.trials], metric)
    finished = [results[trial.name] for trial in trials if trial.state == "done"]
    comparison = compare_trials(directory, finished, metric)
    counts = {**_count_states(trials), "excluded": len(record.excluded)}
    curves = curves_figure({trial.name: read_epochs(directory.run(trial.name)) for trial in trials})
    return ExperimentPage(
        title=f"{directory.root.name}: {len(trials)} trials of {config.dataset}",
        headline=_build_headline(trials, comparison, titles[metric], metric),
        notices=_list_notices(config, finished, store),
        values={name: f"{count:,}" for name, count in counts.items() if count},
        titles=titles,
        comparison=comparison,
        trials=trials,
        curves=encode_figure(curves, "png") if curves else None,
        tables=_list_table_costs(directory, record, store),
        images=compare_predictions(config, directory, finished, store, num_images),
    )


def _build_entry(config: ExperimentConfig, trial: TrialRecord, result: TrialResult | None) -> TrialEntry:
    settings = list_settings(config, trial)
    if result is None:
        return TrialEntry(trial.name, settings, "pending")
    if result.status == "failed":
        return TrialEntry(trial.name, settings, "failed", result.reason)
    return TrialEntry(
        name=trial.name,
        settings=settings,
        state="done",
        scores=config.training_task.task.read_scores(result.evaluated),
        images=result.evaluated["images"],
        epochs=result.trained["epochs"],
        best_epoch=result.trained["best_epoch"],
        seconds=result.seconds,
        bytes=result.bytes,
    )


def _sort_trials(trials: Sequence[TrialEntry], metric: str) -> list[TrialEntry]:
    """Sorts trials by the primary metric, best first. Trials without scores are last, in their order."""
    return sorted(trials, key=lambda trial: -trial.scores[metric].value if trial.scores else float("inf"))


def _build_headline(trials: Sequence[TrialEntry], comparison: TrialComparison, title: str, metric: str) -> str:
    best = trials[0]
    if not best.scores:
        return "No trial has a score yet."
    close = ", ".join(_list_close_trials(trials, comparison)) or "none"
    return f"Best {title}: {best.name}, {format_score(best.scores[metric])}. Not significantly worse: {close}."


def _list_close_trials(trials: Sequence[TrialEntry], comparison: TrialComparison) -> list[str]:
    """Returns the names of the trials that are not significantly worse than the first one."""
    differences = {one.name: comparison.difference(trials[0].name, one.name) for one in trials[1:] if one.scores}
    return [name for name, difference in differences.items() if difference is None or not is_significant(difference)]


def _list_notices(config: ExperimentConfig, finished: Sequence[TrialResult], store: Store | None) -> list[str]:
    notices = [
        note.removeprefix(f"{result.evaluated['run_dir']}: ")
        for result in finished
        for note in result.evaluated["notes"]
    ]
    if len({result.evaluated["data_digest"] for result in finished}) > 1:
        notices.append("The trials were evaluated on different data. Their scores are not comparable.")
    if store is None:
        notices.append(f"The store {config.store} does not exist. Images and references are missing.")
    return list(dict.fromkeys(notices))


def _list_table_costs(directory: ExperimentDirectory, record: ExperimentRecord, store: Store | None) -> list[TableCost]:
    costs = []
    for kind, preparation in record.config.training_task.preparations.items():
        for name in dict.fromkeys(trial.tables[kind] for trial in record.trials):
            prepared = read_record(directory.table(preparation.command, name), TableRecord)
            if prepared:
                trials = sum(trial.tables[kind] == name for trial in record.trials)
                costs.append(_build_table_cost(preparation.command, name, prepared, trials, store))
    return costs


def _build_table_cost(command: str, name: str, prepared: TableRecord, trials: int, store: Store | None) -> TableCost:
    table: Any = None
    try:
        if store:
            table = (store.caption_table if command == "captions" else store.feature_table)(prepared.fingerprint)
    except StoreError:
        table = None
    return TableCost(
        kind=command,
        name=name,
        fingerprint=prepared.fingerprint[:SHORT_FINGERPRINT],
        trials=trials,
        rows=sum(shard.rows for shard in table.shards) if table else None,
        bytes=table.bytes if table else None,
        seconds=prepared.seconds,
    )
