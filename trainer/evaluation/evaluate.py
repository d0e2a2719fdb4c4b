"""`capt evaluate`: how good runs are on held-out images of the store that they were trained from."""

from collections.abc import Mapping, Sequence
from typing import Any

from schemas.errors import UsageError
from schemas.options.inference import Evaluate
from trainer.evaluation.captioner_evaluation import evaluate_captioners, print_captioners
from trainer.evaluation.recognizer_evaluation import evaluate_recognizers, print_recognizers
from trainer.runs.recognizer_run import refuse_generation_options
from trainer.runs.run import Run, load_run


def evaluate(options: Evaluate) -> dict[str, Any]:
    """`capt evaluate`: see `evaluate_runs`."""
    return evaluate_runs([load_run(run) for run in options.runs], options)


def evaluate_runs(runs: Sequence[Run], options: Evaluate) -> dict[str, Any]:
    """Scores of runs on the images of a split.

    Args:
        runs: The runs, all of one task.
        options: What to evaluate them on; the runs that it names are not opened.

    Returns:
        dict: `task`, `runs` and `notes`, as `evaluate_captioners` or `evaluate_recognizers` says. Of a single run its
        figures also stand beside `runs`.

    Raises:
        UsageError: no run was named, they are of different tasks, an option is out of range or of another task, or it
            is not known where the store is.
        StoreError: a run cannot be used, or the store lacks a table of it.
        CaptError: there is nothing to score.
    """
    task = _task(runs)
    if task == "captcha":
        refuse_generation_options(options)
        result = evaluate_recognizers(runs, options)
    else:
        if options.labels:
            raise UsageError("captions are in the store", location="--labels", hint="leave it out")
        result = evaluate_captioners(runs, options)
    alone = result["runs"][0] if len(runs) == 1 else {}
    return {"task": task, **alone, **result}


def print_evaluation(result: Mapping[str, Any]) -> None:
    """Print what `evaluate` returned: a table of the scores, a row a run, and what must be known of them."""
    (print_recognizers if result["task"] == "captcha" else print_captioners)(result)


def _task(runs: Sequence[Run]) -> str:
    tasks = {run.metadata.task: run for run in runs}
    if len(tasks) > 1:
        of_each = ", ".join(f"{run.path.name} {run.does}" for run in tasks.values())
        raise UsageError(f"the runs do different things: {of_each}", hint="evaluate those of one kind at a time")
    return next(iter(tasks))
