"""`capt evaluate`: how good runs are on held-out images of the store that they were trained from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from schemas.errors import UsageError
from schemas.tables import SPLITS
from trainer.runs.recognizer_run import refuse_captions_options
from trainer.runs.run import Run, load_run
from trainer.scoring.caption_evaluation import evaluate_captioners, print_captioners
from trainer.scoring.word_evaluation import evaluate_recognizers, print_recognizers


def evaluate(
    runs: Sequence[str | Path | Run] | str | Path | Run,
    split: str = "test",
    store: str | Path | None = None,
    examples: int = 6,
    labels: str | Path | None = None,
    **decoding: Any,
) -> dict[str, Any]:
    """Scores of runs on the images of a split.

    Args:
        runs: one or a sequence of str, Path or Run. Run directories, or open runs, all of one task.
        split: str. `train`, `val`, `test` or `unused`; where `test` has nothing to score, `val` is taken.
        store: str, Path or None. The store; None takes the one that each run was trained from.
        examples: int. Examples of each kind on each run's page; 0 writes none.
        labels: str, Path or None. Words that the store does not know, see `scoring.truth`; for recognizers alone.
        **decoding: as `trainer.runs.captioner_run.CaptionerRun.decoding` takes it; for captioners alone.

    Returns:
        dict: `task`, `runs` and `notes`, as `evaluate_captioners` or `evaluate_recognizers` says. Of a single run its
        figures also stand beside `runs`.

    Raises:
        UsageError: no run was named, they are of different tasks, an option is out of range or of another task, or it
            is not known where the store is.
        StoreError: a run cannot be used, or the store lacks a table of it.
        CaptError: there is nothing to score.
    """
    named = [runs] if isinstance(runs, (str, Path, Run)) else list(runs)
    _check(named, split, examples)
    opened = [run if isinstance(run, Run) else load_run(run) for run in named]
    task = _task(opened)
    if task == "captcha":
        refuse_captions_options(decoding)
        result = evaluate_recognizers(opened, split, store, examples, labels)
    else:
        if labels:
            raise UsageError("captions are in the store", where="--labels", mend="leave it out")
        result = evaluate_captioners(opened, split, store, examples, **decoding)
    alone = result["runs"][0] if len(opened) == 1 else {}
    return {"task": task, **alone, **result}


def print_evaluation(result: Mapping[str, Any]) -> None:
    """Print what `evaluate` returned: a table of the scores, a row a run, and what must be known of them."""
    (print_recognizers if result["task"] == "captcha" else print_captioners)(result)


def _task(runs: Sequence[Run]) -> str:
    tasks = {run.record.task: run for run in runs}
    if len(tasks) > 1:
        of_each = ", ".join(f"{run.path.name} {run.does}" for run in tasks.values())
        raise UsageError(f"the runs do different things: {of_each}", mend="evaluate those of one kind at a time")
    return next(iter(tasks))


def _check(runs: Sequence[object], split: str, examples: int) -> None:
    if not runs:
        raise UsageError("no run was named")
    if split not in SPLITS:
        raise UsageError(f"there is no split {split!r}", where="--split", mend=f"use one of {', '.join(SPLITS)}")
    if examples < 0:
        raise UsageError("less than no example", where="--examples")
