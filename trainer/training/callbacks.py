"""Shows progress, saves checkpoints and checks the loss within an epoch."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from features.runtime.keras_settings import keras
from schemas.errors import CaptError
from schemas.terminal.progress import is_progress_shown
from trainer.runs.checkpoints import Progress, metric_sums, random_states, restore_sums

_FEW_SECONDS = 100


class StepCallback(keras.callbacks.Callback):
    """Restores the metrics of a checkpoint, shows progress, and saves checkpoints every few steps.

    Args:
        start: The progress of the run when the epoch started or resumed.
        steps: Number of steps of the whole epoch.
        metrics: The metrics of the model, the loss first.
        save: Saves a checkpoint.
        save_steps: Steps between checkpoints, or None.
        show: Shows the number of finished steps and a note.
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
        self._start = start
        self._steps = steps
        self._metrics = metrics
        self._save = save
        self._loss = metrics[0].name
        self._save_steps = save_steps
        self._show = show
        self._step = start.step
        self._seconds = start.seconds
        self._clock = 0.0

    def progress(self) -> Progress:
        """Returns the progress within the epoch."""
        # On JAX, reading `model` copies the training state to the model and its metrics.
        model = self.model
        return self._start.model_copy(
            update={
                "step": self._step,
                "seconds": self._seconds,
                "sums": metric_sums(self._metrics),
                "random": random_states(model),
            }
        )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self._start.step:
            restore_sums(self._metrics, self._start.sums)
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
    """Estimates the remaining time of a run from its speed in this process, validation included.

    Args:
        done: Number of steps that were finished before.
        total: Number of steps of the whole run.
    """

    def __init__(self, done: int, total: int) -> None:
        self._first = done
        self._total = total
        self._started = time.monotonic()

    def left(self, done: int) -> str:
        """Returns the remaining time after `done` steps as text; empty before the first and after the last step."""
        if not self._first < done < self._total:
            return ""
        seconds = (time.monotonic() - self._started) / (done - self._first) * (self._total - done)
        return f"{seconds:.0f} s left" if seconds < _FEW_SECONDS else f"{seconds / 60:.0f} min left"


def check_finite(loss: float) -> float:
    """Returns the loss.

    Raises:
        CaptError: The loss is infinite or not a number.
    """
    if not math.isfinite(loss):
        raise CaptError("the loss is infinite or not a number", hint="Train again with a smaller learning_rate.")
    return loss
