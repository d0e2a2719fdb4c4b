"""Warm starts: a run that begins with the weights of another of the same model, whatever its vocabulary.

A word that both know keeps what the other run learned of it, wherever it stands in either vocabulary; the others begin
as they would.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import UsageError
from trainer.runs.metadata import CaptionerMetadata, RunMetadata
from trainer.runs.run import Run, load_run

if TYPE_CHECKING:
    from features.runtime.keras_settings import keras


@dataclass(frozen=True)
class WarmStart:
    """The run that another begins with, and its words by id; none for models without a vocabulary."""

    run: Run
    words: tuple[str, ...] = ()

    @classmethod
    def of(cls, path: str | Path, record: type[RunMetadata], model: str) -> "WarmStart":
        """A warm start from the run in a directory.

        Args:
            path: str or Path. The run directory.
            record: type. What the new run is.
            model: str. Its model.

        Raises:
            UsageError: the run is of another task or model.
        """
        run = load_run(path)
        if not isinstance(run.metadata, record) or run.metadata.model != model:
            raise UsageError(
                f"the run to begin with is {run.metadata.model}, this one {model}",
                location=f"--warm-start-from {path}",
                hint="name a run of the same model, or leave it out",
            )
        return cls(run, tuple(run.vocabulary) if isinstance(run.metadata, CaptionerMetadata) else ())

    def put_into(self, model: "keras.Model", record: RunMetadata, root: Path, words: tuple[str, ...] = ()) -> None:
        """Put the run's weights into a model.

        Args:
            model: keras.Model. Built, of the same kind.
            record: RunMetadata. What it is.
            root: Path. Its run directory.
            words: tuple of str. Its vocabulary by id.

        Raises:
            UsageError: its sizes are others.
        """
        from features.runtime.keras_settings import ops

        known = {word: number for number, word in enumerate(self.words)}
        shared = np.array([(known[word], number) for number, word in enumerate(words) if word in known], np.int64)
        theirs, ours = self.run.model.weights, model.weights
        if [one.path.split("/")[-1] for one in theirs] != [one.path.split("/")[-1] for one in ours]:
            raise self._unlike()
        for old, new, axis in zip(theirs, ours, _word_axes(record, root, ours), strict=True):
            values = ops.convert_to_numpy(old)
            fitted = values if axis is None else _placed(values, ops.convert_to_numpy(new), axis, shared)
            if fitted.shape != tuple(new.shape):
                raise self._unlike()
            new.assign(fitted)

    def _unlike(self) -> UsageError:
        return UsageError(
            "the run to begin with has other sizes than this one",
            location=f"--warm-start-from {self.run.path}",
            hint="train with its sizes, see its run.json, or leave it out",
        )


def learned_by(keys: NDArray[np.uint8], warm: WarmStart | None) -> NDArray[np.uint8]:
    """Returns the content keys of the images that a run learns from, those of the run that it begins with included.

    Args:
        keys: Those of its train split, uint8 [N, 32].
        warm: The run that it begins with.
    """
    return keys if warm is None else np.concatenate([keys, warm.run.learned])


def _word_axes(record: RunMetadata, root: Path, weights: list[Any]) -> list[int | None]:
    """Of each weight the axis that is as long as the vocabulary, told by a model of one word more."""
    if not isinstance(record, CaptionerMetadata):
        return [None] * len(weights)
    larger = record.model_copy(update={"vocabulary": record.vocabulary + 1}).build(root).weights
    return [
        next((axis for axis, (a, b) in enumerate(zip(one.shape, other.shape, strict=True)) if a != b), None)
        for one, other in zip(weights, larger, strict=True)
    ]


def _placed(old: NDArray[Any], new: NDArray[Any], axis: int, shared: NDArray[np.int64]) -> NDArray[Any]:
    """`new` with what `old` has of the words that both know: pairs of ids [N, 2], old and new."""
    placed = np.moveaxis(np.array(new), axis, 0)
    theirs = np.moveaxis(old, axis, 0)
    if theirs.shape[1:] == placed.shape[1:]:
        placed[shared[:, 1]] = theirs[shared[:, 0]]
        return np.moveaxis(placed, 0, axis)
    return old
