"""Initializes the weights of a run from another run of the same model.

The vocabularies may differ. A token in both vocabularies gets the weights of the other run. Other tokens keep their
initial weights.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import UsageError
from trainer.runs.metadata import RunMetadata
from trainer.runs.run import Run, load_run

if TYPE_CHECKING:
    from features.runtime.keras_settings import keras


def open_warm_start(path: str | Path, task: str, model: str) -> Run:
    """Opens the run that provides the initial weights; UsageError if it has another task or model."""
    run: Run = load_run(path)
    if (run.metadata.task, run.metadata.model) != (task, model):
        raise UsageError(
            f"the run is a {run.metadata.model}, and the new run is a {model}",
            location=f"--warm-start-from {path}",
            hint="Choose a run of the same model, or omit the option.",
        )
    run.check_files()
    return run


def copy_weights(
    run: Run,
    model: "keras.Model",
    metadata: RunMetadata,
    root: Path,
    vocabularies: tuple[Sequence[str], Sequence[str]] | None = None,
) -> None:
    """Copies the weights of a run to the built model of a new run; UsageError if their hyperparameters differ.

    `vocabularies` are the tokens of the run and of the new run by ID; None for models without a vocabulary.
    """
    from features.runtime.keras_settings import ops

    differs = UsageError(
        "the run has other model hyperparameters than the new run",
        location=f"--warm-start-from {run.path}",
        hint="Train with the hyperparameters in its run.json, or omit the option.",
    )
    theirs, ours = run.model.weights, model.weights
    if [one.path.split("/")[-1] for one in theirs] != [one.path.split("/")[-1] for one in ours]:
        raise differs
    axes = _find_vocabulary_axes(metadata, root, ours) if vocabularies else [None] * len(ours)
    old_tokens, new_tokens = vocabularies or ((), ())
    known = {token: number for number, token in enumerate(old_tokens)}
    pairs = [(known[token], number) for number, token in enumerate(new_tokens) if token in known]
    shared = np.array(pairs, np.int64).reshape(-1, 2)
    for old, new, axis in zip(theirs, ours, axes, strict=True):
        values = ops.convert_to_numpy(old)
        if axis is not None:
            values = _merge(values, ops.convert_to_numpy(new), axis, shared)
        if values.shape != tuple(new.shape):
            raise differs
        new.assign(values)


def _find_vocabulary_axes(metadata: RunMetadata, root: Path, weights: list[Any]) -> list[int | None]:
    """Returns the vocabulary axis of each weight, by comparison with a model for one more token."""
    size = metadata.model_dump()["vocab_size"]
    larger = metadata.model_copy(update={"vocab_size": size + 1}).build(root).weights
    return [
        next((axis for axis, (a, b) in enumerate(zip(one.shape, other.shape, strict=True)) if a != b), None)
        for one, other in zip(weights, larger, strict=True)
    ]


def _merge(old: NDArray[Any], new: NDArray[Any], axis: int, shared: NDArray[np.int64]) -> NDArray[Any]:
    """Returns `new` with the rows of `old` for shared tokens; `shared` [N, 2] are their old and new IDs."""
    merged = np.moveaxis(np.array(new), axis, 0)
    theirs = np.moveaxis(old, axis, 0)
    if theirs.shape[1:] != merged.shape[1:]:
        return old
    merged[shared[:, 1]] = theirs[shared[:, 0]]
    return np.moveaxis(merged, 0, axis)
