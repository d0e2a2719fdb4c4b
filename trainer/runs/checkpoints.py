"""Saves and loads the checkpoints of a run atomically.

    checkpoints/00000480/model.weights.h5      weights and optimizer after 480 steps
    checkpoints/00000480/average.weights.h5    exponential moving average (EMA) of the weights, if the run has one
    checkpoints/state.json                     names of the checkpoints, progress of the last one

`state.json` is replaced last. Directories that it does not reference are deleted.
"""

import shutil
from pathlib import Path

import numpy as np
from pydantic import Field, ValidationError

from features.io.atomic_files import make_directory, replace_tree_atomically, temporary_path, write
from features.io.temporary_names import is_temporary
from features.runtime.keras_settings import keras
from schemas.errors import CorruptFileError, UsageError
from schemas.frozen import Frozen
from schemas.strict_json import parse_json
from trainer.models.ema import ema_weights, has_ema
from trainer.runs.epoch_metrics import EpochMetrics

STATE = "state.json"
WEIGHTS = "model.weights.h5"
AVERAGE = "average.weights.h5"


class Progress(Frozen):
    """The progress of a run: finished epochs, and steps, metric sums and seconds of the unfinished epoch."""

    epoch: int = 0
    step: int = 0
    history: tuple[EpochMetrics, ...] = ()
    sums: tuple[float, ...] = ()
    random: tuple[tuple[int, ...], ...] = ()  # states of the model's random generators
    seconds: float = 0.0

    @property
    def best(self) -> EpochMetrics | None:
        """The best finished epoch; the first one among equals."""
        return min(self.history, key=lambda metrics: metrics.monitored, default=None)

    def stops_early(self, patience: int | None) -> bool:
        """Returns whether the last `patience` epochs were not better than an earlier one; None for no limit."""
        best = self.best
        return bool(best and patience and self.step == 0 and self.epoch - best.epoch >= patience)


class TrainingState(Frozen):
    """The content of `state.json`: directory names of checkpoints, and the progress of the last one.

    `kept` are the checkpoints of the last epochs that the run keeps in addition, by epoch.
    """

    last: str
    best: str
    progress: Progress
    kept: dict[int, str] = Field(default_factory=dict)

    @property
    def epochs(self) -> dict[int, str]:
        """The checkpoints of all epochs whose weights exist, by epoch."""
        found, best = dict(self.kept), self.progress.best
        if best:
            found[best.epoch] = self.best
        if best and self.progress.step == 0:
            found[self.progress.epoch] = self.last
        return dict(sorted(found.items()))


class Checkpoints:
    """The checkpoints of one run, in a directory that may be missing."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def state(self) -> TrainingState | None:
        """Reads `state.json`; None before the first checkpoint, CorruptFileError if it is corrupt."""
        path = self._root / STATE
        try:
            data = path.read_bytes()
            parse_json(data)
            return TrainingState.model_validate_json(data)
        except FileNotFoundError:
            return None
        except ValueError as error:
            problem = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
            raise CorruptFileError(f"the file is corrupt: {problem}", location=str(path)) from None

    def read_state(self) -> TrainingState:
        """Reads `state.json`; CorruptFileError before the first checkpoint, or if it is corrupt."""
        state = self.state()
        if state is None:
            hint = "Repeat the training command until it ends."
            raise CorruptFileError("the run has no checkpoint yet", location=str(self._root), hint=hint)
        return state

    def save(self, model: keras.Model, progress: Progress, total_steps: int, keep_epochs: int = 0) -> None:
        """Saves a checkpoint of a compiled model, and deletes those that are not needed any more.

        The last and the best checkpoint remain, and those of the last `keep_epochs` epochs. `total_steps`, since the
        run started, names the checkpoint.
        """
        name = f"{total_steps:08d}"
        self._write_weights(model, self._root / name)
        before = self.state()
        is_better = progress.step == 0 and progress.best == progress.history[-1]
        best = name if before is None or is_better else before.best
        epochs = {**(before.epochs if before else {}), **({progress.epoch: name} if progress.step == 0 else {})}
        kept = {epoch: one for epoch, one in epochs.items() if epoch > progress.epoch - keep_epochs}
        state = TrainingState(last=name, best=best, progress=progress, kept=kept)
        write(self._root / STATE, state.model_dump_json().encode())
        needed = {state.last, state.best, *kept.values()}
        for path in self._root.iterdir():
            if path.is_dir() and (is_temporary(path) or path.name not in needed):
                shutil.rmtree(path)

    def load_last(self, model: keras.Model) -> Progress | None:
        """Loads the last checkpoint into a model, its optimizer and random generators.

        The model is built and compiled as it was when saved. Returns the progress; None without a checkpoint.
        """
        state = self.state()
        if state is None:
            return None
        load_weights(model, self._root / state.last / WEIGHTS)
        for variable, values in zip(_random_variables(model), state.progress.random, strict=True):
            variable.assign(np.reshape(np.array(values, variable.dtype), variable.shape))
        return state.progress

    def find(self, epoch: int | None = None) -> str:
        """Returns the name of the checkpoint of an epoch, None for the best one.

        Raises:
            CorruptFileError: The run has no checkpoint yet, or `state.json` is corrupt.
            UsageError: The weights of the epoch were not kept.
        """
        state = self.read_state()
        if epoch is None:
            return state.best
        if epoch not in state.epochs:
            raise _make_missing_epoch_error(self._root, epoch, state)
        return state.epochs[epoch]

    def load(self, model: keras.Model, epoch: int | None = None) -> None:
        """Loads the weights of an epoch, None for the best one, or their EMA, into a built model; errors as `find`."""
        directory = self._root / self.find(epoch)
        try:
            load_weights(model, directory / (AVERAGE if (directory / AVERAGE).exists() else WEIGHTS))
        except CorruptFileError:
            # If the run is still training, it may have replaced the checkpoint in the meantime.
            if self._root / self.find(epoch) == directory:
                raise
            self.load(model, epoch)

    def _write_weights(self, model: keras.Model, directory: Path) -> None:
        make_directory(self._root)
        temporary = temporary_path(directory)
        temporary.mkdir()
        model.save_weights(temporary / WEIGHTS)
        if has_ema(model):
            with ema_weights(model):
                model.save_weights(temporary / AVERAGE)
        shutil.rmtree(directory, ignore_errors=True)
        replace_tree_atomically(temporary, directory)


def _make_missing_epoch_error(root: Path, epoch: int, state: TrainingState) -> UsageError:
    best = state.progress.best
    names = [f"{one} (best)" if best and one == best.epoch else str(one) for one in state.epochs]
    known = f"it has those of epoch{'s' * (len(names) > 1)} {', '.join(names)}" if names else "no epoch is finished yet"
    return UsageError(
        f"the run has no weights of epoch {epoch}: {known}",
        location=f"--epoch: {root.parent}",
        hint="Choose one of these, or train with a larger keep_epochs." if names else "Omit the option.",
    )


def load_weights(model: keras.Model, path: Path) -> None:
    """Loads weights into a built model; CorruptFileError if they are missing, corrupt, or of another model."""
    if not path.is_file():
        raise CorruptFileError("the weights are missing", location=str(path))
    try:
        model.load_weights(path)
    except (OSError, ValueError, KeyError) as error:
        raise CorruptFileError(f"the weights cannot be read: {error}", location=str(path)) from error


def random_states(model: keras.Model) -> tuple[tuple[int, ...], ...]:
    """Returns the states of a model's random generators, which its weights file does not contain."""
    return tuple(tuple(map(int, np.ravel(variable))) for variable in _random_variables(model))


def _random_variables(model: keras.Model) -> list[keras.Variable]:
    weights = {id(variable) for variable in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]
