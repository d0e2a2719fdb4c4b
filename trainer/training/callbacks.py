"""Watching over an epoch: how far it is and has to go, when a checkpoint is due, whether the loss is a number still."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from features.runtime.keras_settings import keras
from schemas.errors import CaptError
from schemas.terminal.progress import is_progress_shown
from trainer.training.checkpoints import Progress, metric_sums, random_states, restore_sums

_FEW_SECONDS = 100


class StepCallback(keras.callbacks.Callback):
    """Keeps count within an epoch: puts back what the checkpoint knew, shows progress, saves every so many steps.

    Args:
        start: Progress. Where the run stood when the epoch, or the rest of it, began.
        steps: int. Steps of the whole epoch.
        metrics: sequence of keras.Metric. What the model measures, the loss first.
        keep: function. Saves a checkpoint.
        every: int or None. Steps between checkpoints.
        show: function. Takes the steps done and a note.
    """

    def __init__(
        self,
        start: Progress,
        steps: int,
        metrics: Sequence[keras.Metric],
        keep: Callable[[Progress], None],
        every: int | None,
        show: Callable[[int, str], None],
    ) -> None:
        super().__init__()
        self._start = start
        self._steps = steps
        self._metrics = metrics
        self._keep = keep
        self._loss = metrics[0].name
        self._every = every
        self._show = show
        self._step = start.step
        self._seconds = start.seconds
        self._clock = 0.0

    def progress(self) -> Progress:
        """Where the run stands now, within the epoch."""
        # On JAX the state of training reaches model and metrics when a callback asks for its model.
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
        if self._every and self._step % self._every == 0 and self._step < self._steps:
            check_finite(float(logs[self._loss]))
            self._keep(self.progress())
        self._clock = time.monotonic()


class EtaEstimator:
    """How long a run has to go, by what its steps have taken in this process, validation and all.

    Args:
        done: int. Steps that were done before.
        total: int. Steps of the whole run.
    """

    def __init__(self, done: int, total: int) -> None:
        self._first = done
        self._total = total
        self._began = time.monotonic()

    def left(self, done: int) -> str:
        """The time to go once so many steps are done, in words; empty before the first and after the last."""
        if not self._first < done < self._total:
            return ""
        seconds = (time.monotonic() - self._began) / (done - self._first) * (self._total - done)
        return f"{seconds:.0f} s to go" if seconds < _FEW_SECONDS else f"{seconds / 60:.0f} min to go"


def check_finite(loss: float) -> float:
    """The loss itself; CaptError where it is infinite or no number."""
    if not math.isfinite(loss):
        raise CaptError("the loss is not a number any more", hint="train again with a smaller learning_rate")
    return loss
