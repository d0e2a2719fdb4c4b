"""Shows progress, saves checkpoints and checks the loss within an epoch, and writes TensorBoard logs."""

import math
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from features.runtime.keras_settings import keras, ops
from schemas.errors import CaptError
from schemas.terminal.progress import is_progress_shown
from trainer.runs.checkpoints import Progress, random_states
from trainer.runs.epoch_metrics import EpochMetrics

_FEW_SECONDS = 100


class StepCallback(keras.callbacks.Callback):
    """Restores the metrics of a checkpoint, shows progress, and saves a checkpoint every `save_steps` steps.

    `start` is the progress when the epoch of `steps` steps started or resumed; the first of `metrics` is the loss.
    `show` shows the number of finished steps and a note.
    """

    def __init__(
        self,
        start: Progress,
        steps: int,
        metrics: Sequence[keras.Metric],
        save: Callable[[Progress], None],
        save_steps: int | None,
        show: Callable[[int, str], None],
    ) -> None:
        super().__init__()
        self._start, self._step, self._seconds = start, start.step, start.seconds
        self._steps, self._save_steps = steps, save_steps
        self._save, self._show = save, show
        self._loss = metrics[0].name
        self._sums = [variable for metric in metrics for variable in metric.variables]
        self._clock = 0.0

    def progress(self) -> Progress:
        """Returns the progress within the epoch."""
        # On JAX, reading `model` copies the training state to the model and its metrics.
        model = self.model
        sums = tuple(float(ops.convert_to_numpy(variable)) for variable in self._sums)
        changes = {"step": self._step, "seconds": self._seconds, "sums": sums, "random": random_states(model)}
        return self._start.model_copy(update=changes)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self._start.step:
            for variable, value in zip(self._sums, self._start.sums, strict=True):
                variable.assign(value)
        self._clock = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._step += 1
        now = time.monotonic()
        self._seconds += now - self._clock
        if is_progress_shown():
            self._show(self._step, f"loss {check_finite(float(logs[self._loss])):.3f}")
        if self._save_steps and self._step % self._save_steps == 0 and self._step < self._steps:
            check_finite(float(logs[self._loss]))
            self._save(self.progress())
        self._clock = time.monotonic()


class EtaEstimator:
    """Estimates the remaining time of `total` steps, of which `done` were finished before; includes validation."""

    def __init__(self, done: int, total: int) -> None:
        self._first, self._total, self._started = done, total, time.monotonic()

    def left(self, done: int) -> str:
        """Returns the remaining time after `done` steps as text; empty before the first and after the last step."""
        if not self._first < done < self._total:
            return ""
        seconds = (time.monotonic() - self._started) / (done - self._first) * (self._total - done)
        return f"{seconds:.0f} s left" if seconds < _FEW_SECONDS else f"{seconds / 60:.0f} min left"


def check_finite(loss: float) -> float:
    """Returns the loss; CaptError if it is infinite or not a number."""
    if not math.isfinite(loss):
        raise CaptError("the loss is infinite or not a number", hint="Train again with a smaller learning_rate.")
    return loss


class TensorBoardLogger:
    """Writes the metrics of each epoch for TensorBoard: one directory per split, as the callback of Keras does.

    Logs in `root` are written again from the history of the run, so that a resumed run shows every epoch once.
    """

    def __init__(self, root: Path, history: Sequence[EpochMetrics]) -> None:
        shutil.rmtree(root, ignore_errors=True)
        self._root = root
        self._writers: dict[str, tf.summary.SummaryWriter] = {}
        for metrics in history:
            self.add(metrics)

    def add(self, metrics: EpochMetrics) -> None:
        """Writes the metrics of one epoch and flushes the files, so that TensorBoard shows them at once."""
        for name, value in metrics.values().items():
            folder = "validation" if name.startswith("val_") else "train"
            if folder not in self._writers:
                self._writers[folder] = tf.summary.create_file_writer(str(self._root / folder))
            with self._writers[folder].as_default():
                tf.summary.scalar(f"epoch_{name.removeprefix('val_')}", value, step=metrics.epoch)
        for writer in self._writers.values():
            writer.flush()

    def close(self) -> None:
        """Closes the files."""
        for writer in self._writers.values():
            writer.close()
