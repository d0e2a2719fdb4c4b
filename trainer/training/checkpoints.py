"""Checkpoints: a run's weights and where it stood, whole or absent however it was stopped.

    checkpoints/00000480/model.weights.h5      weights and optimizer after 480 steps
    checkpoints/00000480/average.weights.h5    the weights' running average, where the run keeps one: what answers
    checkpoints/state.json                     which checkpoint is the last, which the best, where the last one stood

`state.json` is replaced last, in one step; a directory that it does not name is of no account and is cleared away.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from features.io.atomic_files import TEMP_PREFIX, make_directory, replace_tree_atomically, temporary_path, write
from features.runtime.keras_settings import keras, ops
from schemas.errors import CorruptFileError
from schemas.frozen import Frozen
from schemas.strict_json import parse_json
from trainer.training.ema import ema_weights, keeps_average
from trainer.training.epoch_metrics import CaptionerMetrics, RecognizerMetrics

STATE = "state.json"
WEIGHTS = "model.weights.h5"
AVERAGE = "average.weights.h5"

Figures = CaptionerMetrics | RecognizerMetrics


class Progress(Frozen):
    """Where a run stands.

    Args:
        epoch: int. Epochs finished.
        step: int. Steps finished of the next one.
        history: tuple of Figures. What each finished epoch gave.
        sums: tuple of float. What the metrics have added up within the unfinished epoch.
        random: tuple of tuples of int. The states of the model's random generators.
        seconds: float. Training time of the unfinished epoch.
    """

    epoch: int = 0
    step: int = 0
    history: tuple[Figures, ...] = ()
    sums: tuple[float, ...] = ()
    random: tuple[tuple[int, ...], ...] = ()
    seconds: float = 0.0

    @property
    def best(self) -> Figures | None:
        """The best finished epoch, the first of equals."""
        return min(self.history, key=lambda figures: figures.judged, default=None)


class TrainingState(Frozen):
    """What `state.json` says: directory names of checkpoints, and the progress of the last one."""

    last: str
    best: str
    progress: Progress


class Checkpoints:
    """The checkpoints of one run.

    Args:
        root: Path. Their directory; it need not exist.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def state(self) -> TrainingState | None:
        """What was saved last; None before the first checkpoint, CorruptFileError where it cannot be read."""
        path = self._root / STATE
        try:
            data = path.read_bytes()
            parse_json(data)
            return TrainingState.model_validate_json(data)
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise CorruptFileError(f"damaged: {error.errors()[0]['msg']}", location=str(path)) from None
        except ValueError as error:
            raise CorruptFileError(f"damaged: {error}", location=str(path)) from None

    def save(self, model: keras.Model, progress: Progress, total_steps: int) -> None:
        """Keep the model as it is now, and forget checkpoints that are neither last nor best.

        Args:
            model: keras.Model. Compiled.
            progress: Progress. Where the run stands.
            total_steps: int. Steps since the run began, which name the checkpoint.
        """
        name = f"{total_steps:08d}"
        self._write_weights(model, self._root / name)
        before = self.state()
        is_better = progress.step == 0 and progress.best == progress.history[-1]
        best = name if before is None or is_better else before.best
        state = TrainingState(last=name, best=best, progress=progress)
        write(self._root / STATE, state.model_dump_json().encode())
        self._clear(state)

    def load_last(self, model: keras.Model) -> Progress | None:
        """Put the last checkpoint into a compiled model, its optimizer and random generators; where it stood, or None.

        Args:
            model: keras.Model. Built and compiled as it was when saved.
        """
        state = self.state()
        if state is None:
            return None
        load_weights(model, self._root / state.last / WEIGHTS)
        restore_random(model, state.progress.random)
        return state.progress

    def load_best(self, model: keras.Model) -> None:
        """Put the best checkpoint's weights, or their average, into a built model; CorruptFileError where there is
        none.
        """
        state = self.state()
        if state is None:
            raise CorruptFileError(
                "the run has no checkpoint yet",
                location=str(self._root),
                hint="run `capt train` to its end",
            )
        directory = self._root / state.best
        try:
            load_weights(model, directory / (AVERAGE if (directory / AVERAGE).exists() else WEIGHTS))
        except CorruptFileError:
            # A run that is still training may have found a better one meanwhile, and cleared this one away.
            if self.state() == state:
                raise
            self.load_best(model)

    def _write_weights(self, model: keras.Model, directory: Path) -> None:
        make_directory(self._root)
        temporary = temporary_path(directory)
        temporary.mkdir()
        model.save_weights(temporary / WEIGHTS)
        if keeps_average(model):
            with ema_weights(model):
                model.save_weights(temporary / AVERAGE)
        # What a killed run left under this name was never named by the state.
        shutil.rmtree(directory, ignore_errors=True)
        replace_tree_atomically(temporary, directory)

    def _clear(self, state: TrainingState) -> None:
        for path in self._root.iterdir():
            if path.is_dir() and (path.name.startswith(TEMP_PREFIX) or path.name not in (state.last, state.best)):
                shutil.rmtree(path)


def load_weights(model: keras.Model, path: Path) -> None:
    """Load weights into a built model; CorruptFileError where the file is missing or does not fit."""
    if not path.is_file():
        raise CorruptFileError("the weights are missing", location=str(path))
    try:
        model.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise CorruptFileError(f"the weights cannot be read: {error}", location=str(path)) from error


def metric_sums(metrics: Sequence[keras.Metric]) -> tuple[float, ...]:
    """What metrics have added up so far."""
    return tuple(float(ops.convert_to_numpy(variable)) for metric in metrics for variable in metric.variables)


def restore_sums(metrics: Sequence[keras.Metric], sums: tuple[float, ...]) -> None:
    """Put back what `metric_sums` gave."""
    for variable, value in zip([v for metric in metrics for v in metric.variables], sums, strict=True):
        variable.assign(value)


def random_states(model: keras.Model) -> tuple[tuple[int, ...], ...]:
    """The states of a model's random generators, which its weights file leaves out."""
    return tuple(tuple(map(int, np.ravel(variable))) for variable in _random_variables(model))


def restore_random(model: keras.Model, states: tuple[tuple[int, ...], ...]) -> None:
    """Put back what `random_states` gave."""
    for variable, values in zip(_random_variables(model), states, strict=True):
        variable.assign(np.reshape(np.array(values, variable.dtype), variable.shape))


def _random_variables(model: keras.Model) -> list[keras.Variable]:
    weights = {id(variable) for variable in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]
