"""Implements `capt evaluate`: evaluates runs on held-out images of the store that they were trained from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from schemas.errors import UsageError
from schemas.options.inference import Evaluate
from schemas.terminal.console import Printer
from trainer.evaluation.base import find_store, shorten
from trainer.runs.run import Run, load_run
from trainer.task_registry import find_task


def evaluate(options: Evaluate) -> dict[str, Any]:
    """Evaluates runs of one task on the images of a split.

    Returns:
        `task`; `runs`, the results of `trainer.evaluation.base.Evaluation.evaluate` per run; `notes`. The result
        of a single run is also merged into the result itself.

    Raises:
        UsageError: The runs have different tasks, an option does not fit, or the store is unknown.
        StoreError: A run cannot be read, or the store lacks one of its tables.
        CaptError: The split has no usable images, or pycocoevalcap is not installed.
    """
    runs: list[Run] = [load_run(run) for run in options.runs]
    tasks = {run.metadata.task: run for run in runs}
    if len(tasks) > 1:
        found = ", ".join(f"{run.path.name} {run.task.description}" for run in tasks.values())
        raise UsageError(f"the runs have different tasks: {found}", hint="Evaluate the runs of one task at a time.")
    task = find_task(next(iter(tasks)))
    task.check_evaluation(options)
    evaluation = task.evaluation(options)
    for run in runs:
        find_store(run, options)
        evaluation.check_run(run)
    with evaluation:
        results = [evaluation.evaluate(run) for run in runs]
        notes = evaluation.all_notes(results)
    return {"task": task.name, **(results[0] if len(results) == 1 else {}), "runs": results, "notes": notes}


def print_evaluation(result: Mapping[str, Any]) -> None:
    """Prints the metrics, notes and output directories of `evaluate`."""
    printer = Printer()
    find_task(result["task"]).evaluation.print_tables(printer, result["runs"])
    for note in result["notes"]:
        printer.line(note, "yellow")
    for summary in result["runs"]:
        printer.line(f"predictions and scores: {shorten(Path(summary['scores_path']).parent)}")
