"""Writes the HTML report of an experiment."""

from collections.abc import Mapping, Sequence
from typing import Any

from features.io.locations import local_path
from features.store import Store
from schemas.errors import StoreError
from schemas.options.workflows import ExperimentReport
from schemas.terminal.console import Printer
from trainer.reports.page_files import check_page_path, write_page
from workflows.experiments.comparison import TrialComparison, compare_predictions, compare_trials
from workflows.experiments.config import DATASET, ExperimentConfig
from workflows.experiments.planning import open_store_if_exists
from workflows.experiments.records import (
    ExperimentDirectory,
    ExperimentRecord,
    Trial,
    TrialResult,
    read_epochs,
    read_record,
)
from workflows.experiments.report_page import (
    TrialEntry,
    build_experiment_page,
    build_table_costs,
    format_score,
    is_significant,
    plot_curves,
)

_STATES = ("done", "failed", "pending")


def report_experiment(options: ExperimentReport) -> dict[str, Any]:
    """Writes the page of an experiment. The experiment may still be running.

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
    path = check_page_path(options.output or directory.root / "report.html", "--output")
    record = read_record(directory.experiment, ExperimentRecord)
    if record is None:
        hint = "Run one with `capt experiment run FILE`."
        raise StoreError("the directory has no experiment", location=options.directory, hint=hint)
    config, store = record.config, open_store_if_exists(record.config.store)
    titles = config.training_task.task.metrics
    metric = next(iter(titles))
    trials = [
        _build_entry(config, trial, read_record(directory.result(trial.name), TrialResult)) for trial in record.trials
    ]
    # Best first; trials without scores are last, in their order.
    trials.sort(key=lambda trial: -trial.scores[metric].value if trial.scores else float("inf"))
    finished = [trial.result for trial in trials if trial.result and trial.state == "done"]
    comparison = compare_trials(directory, finished, metric)
    states = [trial.state for trial in trials]
    counts = {state: states.count(state) for state in _STATES}
    notices = _list_notices(config, finished, store)
    best = trials[0].name if trials[0].scores else None
    close = _list_close_trials(trials, comparison) if best else []
    headline = "No trial has a score yet."
    if best:
        score = format_score(trials[0].scores[metric])
        headline = f"Best {titles[metric]}: {best}, {score}. Not significantly worse: {', '.join(close) or 'none'}."
    page = build_experiment_page(
        title=f"{directory.root.name}: {len(trials)} trials of {', '.join(config.sources)}",
        headline=headline,
        notices=notices,
        values={name: f"{n:,}" for name, n in {**counts, "excluded": len(record.excluded)}.items() if n},
        task=config.training_task.task,
        comparison=comparison,
        trials=trials,
        curves=plot_curves({trial.name: read_epochs(directory.run(trial.name)) for trial in trials}),
        table_costs=build_table_costs(directory, record, store),
        images=compare_predictions(config, directory, finished, store, options.num_images),
    )
    write_page(path, page)
    return {
        "experiment": str(directory.root),
        "page": str(path),
        "trials": [
            {
                "trial": trial.name,
                "state": trial.state,
                "reason": trial.reason or None,
                "scores": {name: score.value for name, score in trial.scores.items()},
                "intervals": {name: score.interval for name, score in trial.scores.items() if score.interval},
                "seconds": trial.result.seconds or None if trial.result else None,
                "bytes": trial.result.bytes if trial.result else 0,
            }
            for trial in trials
        ],
        **counts,
        "best": best,
        "not_significantly_worse": close,
        "notes": notices,
    }


def print_report(result: Mapping[str, Any]) -> None:
    """Prints the result of `report_experiment`."""
    printer = Printer()
    counts = ", ".join(f"{result[state]} {state}" for state in _STATES)
    printer.line(f"trials: {counts}; best: {result['best'] or 'none'}")
    printer.line(result["page"])


def _build_entry(config: ExperimentConfig, trial: Trial, result: TrialResult | None) -> TrialEntry:
    settings = config.training_task.settings(trial.options)
    if config.datasets:
        settings[DATASET] = ", ".join(trial.datasets)
    for kind, preparation in config.training_task.preparations.items():
        options = preparation.parse(
            config.store, config.preparation_options(kind, trial.tables[kind], trial.datasets[0])
        )
        rows = options.model_dump(include=set(preparation.row_options), mode="json")
        settings |= {f"{preparation.command}.{name}": value for name, value in rows.items()}
    done = result.evaluated if result and result.status == "done" else None
    return TrialEntry(trial.name, settings, result, config.training_task.task.read_scores(done) if done else {})


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
