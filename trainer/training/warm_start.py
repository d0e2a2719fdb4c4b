"""Initializes the weights of a run from another run of the same model.

The vocabularies may differ. A token in both vocabularies gets the weights of the other run. Other tokens keep their
initial weights.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import UsageError
from trainer.runs.metadata import RunMetadata
from trainer.runs.run import Run, load_run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from features.runtime.keras_settings import keras


@dataclass(frozen=True)
class WarmStart:
    """The run that provides the initial weights."""

    run: Run

    @classmethod
    def open(cls, path: str | Path, task: str, model: str) -> "WarmStart":
        """Opens the run in a directory.

        Raises:
            UsageError: The run has another task or model.
            StoreError: A file that the run needs is missing or corrupt.
        """
        run = load_run(path)
        if (run.metadata.task, run.metadata.model) != (task, model):
            raise UsageError(
                f"the run is a {run.metadata.model}, and the new run is a {model}",
                location=f"--warm-start-from {path}",
                hint="Choose a run of the same model, or omit the option.",
            )
        run.check_files()
        return cls(run)

    def apply_to(
        self,
        model: "keras.Model",
        metadata: RunMetadata,
        root: Path,
        vocabularies: "tuple[Sequence[str], Sequence[str]] | None" = None,
    ) -> None:
        """Copies the weights of the run to a built model.

        Args:
            model: The model.
            metadata: Metadata of the new run.
            root: Directory of the new run.
            vocabularies: The tokens of the other run and of the new run, by ID; None for models without a vocabulary.

        Raises:
            UsageError: The models have different hyperparameters.
        """
        from features.runtime.keras_settings import ops

        theirs, ours = self.run.model.weights, model.weights
        if [one.path.split("/")[-1] for one in theirs] != [one.path.split("/")[-1] for one in ours]:
            raise self._differs()
        axes: list[int | None] = [None] * len(ours)
        if vocabularies:
            axes = _find_vocabulary_axes(metadata, root, ours)
        shared = _match_tokens(*(vocabularies or ((), ())))
        for old, new, axis in zip(theirs, ours, axes, strict=True):
            values = ops.convert_to_numpy(old)
            if axis is not None:
                values = _merge(values, ops.convert_to_numpy(new), axis, shared)
            if values.shape != tuple(new.shape):
                raise self._differs()
            new.assign(values)

    def _differs(self) -> UsageError:
        return UsageError(
            "the run has other model hyperparameters than the new run",
            location=f"--warm-start-from {self.run.path}",
            hint="Train with the hyperparameters in its run.json, or omit the option.",
        )


def _match_tokens(theirs: "Sequence[str]", ours: "Sequence[str]") -> NDArray[np.int64]:
    """Returns pairs of IDs [N, 2], old and new, of the tokens in both vocabularies."""
    known = {token: number for number, token in enumerate(theirs)}
    pairs = [(known[token], number) for number, token in enumerate(ours) if token in known]
    return np.array(pairs, np.int64).reshape(-1, 2)


def _find_vocabulary_axes(metadata: RunMetadata, root: Path, weights: list[Any]) -> list[int | None]:
    """Returns the vocabulary axis of each weight, by comparison with a model for one more token."""
    size = metadata.model_dump()["vocab_size"]
    larger = metadata.model_copy(update={"vocab_size": size + 1}).build(root).weights
    return [
        next((axis for axis, (a, b) in enumerate(zip(one.shape, other.shape, strict=True)) if a != b), None)
        for one, other in zip(weights, larger, strict=True)
    ]


def _merge(old: NDArray[Any], new: NDArray[Any], axis: int, shared: NDArray[np.int64]) -> NDArray[Any]:
    """Returns `new` with the rows of `old` for shared tokens."""
    merged = np.moveaxis(np.array(new), axis, 0)
    theirs = np.moveaxis(old, axis, 0)
    if theirs.shape[1:] != merged.shape[1:]:
        return old
    merged[shared[:, 1]] = theirs[shared[:, 0]]
    return np.moveaxis(merged, 0, axis)
