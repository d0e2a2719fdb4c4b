"""Initializes the weights of a run from another run of the same model.

The vocabularies may differ: the tokens of a captioner, the characters and positions of a recognizer. An entry in both
vocabularies gets the weights of the other run. Other entries keep their initial weights.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Vocabulary:
    """What the entries of some axes of the weights belong to, such as tokens.

    Args:
        old: Entries of the run that provides the weights, by ID.
        new: Entries of the new run, by ID.
        larger: Metadata of the new run with one more entry.
    """

    old: Sequence[Hashable]
    new: Sequence[Hashable]
    larger: RunMetadata

    @property
    def shared(self) -> NDArray[np.int64]:
        """The old and new IDs of the entries that both have, int64 [N, 2]."""
        known = {entry: number for number, entry in enumerate(self.old)}
        pairs = [(known[entry], number) for number, entry in enumerate(self.new) if entry in known]
        return np.array(pairs, np.int64).reshape(-1, 2)


def copy_weights(run: Run, model: "keras.Model", root: Path, vocabularies: Sequence[Vocabulary] = ()) -> None:
    """Copies the weights of a run to the built model of a new run; UsageError if their hyperparameters differ."""
    from features.runtime.keras_settings import ops

    differs = UsageError(
        "the run has other model hyperparameters than the new run",
        location=f"--warm-start-from {run.path}",
        hint="Train with the hyperparameters in its run.json, or omit the option.",
    )
    theirs, ours = run.model.weights, model.weights
    if [one.path.split("/")[-1] for one in theirs] != [one.path.split("/")[-1] for one in ours]:
        raise differs
    values = [ops.convert_to_numpy(weight) for weight in theirs]
    for vocabulary in vocabularies:
        for number, axis in _find_axes(vocabulary, root, ours).items():
            values[number] = _merge(values[number], ops.convert_to_numpy(ours[number]), axis, vocabulary)
    if any(value.shape != tuple(weight.shape) for value, weight in zip(values, ours, strict=True)):
        raise differs
    for value, weight in zip(values, ours, strict=True):
        weight.assign(value)


def _find_axes(vocabulary: Vocabulary, root: Path, weights: list[Any]) -> dict[int, int]:
    """Returns the vocabulary axes by number of the weight, by comparison with a model for one more entry."""
    larger = vocabulary.larger.build(root).weights
    axes = {
        number: [axis for axis, (a, b) in enumerate(zip(one.shape, other.shape, strict=True)) if a != b]
        for number, (one, other) in enumerate(zip(weights, larger, strict=True))
    }
    return {number: found[0] for number, found in axes.items() if found}


def _merge(old: NDArray[Any], new: NDArray[Any], axis: int, vocabulary: Vocabulary) -> NDArray[Any]:
    """Returns `new` with the rows of `old` for shared entries.

    The axis may have several rows per entry, such as one per time step of a column: blocks of all entries.
    """
    theirs = _split_blocks(old, axis, len(vocabulary.old))
    merged = _split_blocks(np.array(new), axis, len(vocabulary.new))
    if theirs is None or merged is None or _drop_entries(theirs) != _drop_entries(merged):
        return old
    shared = vocabulary.shared
    merged[:, shared[:, 1]] = theirs[:, shared[:, 0]]
    return np.moveaxis(merged.reshape(-1, *merged.shape[2:]), 0, axis)


def _split_blocks(weights: NDArray[Any], axis: int, entries: int) -> NDArray[Any] | None:
    """Returns weights as [blocks, entries, ...]; None if the axis does not consist of blocks."""
    moved = np.moveaxis(weights, axis, 0)
    return None if len(moved) % entries else moved.reshape(-1, entries, *moved.shape[1:])


def _drop_entries(weights: NDArray[Any]) -> tuple[int, ...]:
    return (weights.shape[0], *weights.shape[2:])
