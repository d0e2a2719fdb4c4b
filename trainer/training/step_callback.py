"""Shows progress, saves checkpoints and checks the loss within an epoch."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from features.runtime.keras_settings import keras, ops
from schemas.errors import CaptError
from schemas.terminal.progress import is_progress_shown
from trainer.runs.checkpoints import Progress, random_states


class StepCallback(keras.callbacks.Callback):
    """Restores the metrics of a checkpoint, shows progress, and saves a checkpoint every `save_steps` steps.

    `start` is the progress when the epoch of `steps` steps started or resumed. `metrics` are the metrics of training by
    name. `show` shows the number of finished steps and a note with the metric `shown`.
    """

    def __init__(
        self,
        start: Progress,
        steps: int,
        metrics: Mapping[str, keras.Metric],
        save: Callable[[Progress], None],
        save_steps: int | None,
        show: Callable[[int, str], None],
        shown: str = "loss",
    ) -> None:
        super().__init__()
        self._start, self._step, self._seconds = start, start.step, start.seconds
        self._steps, self._save_steps = steps, save_steps
        self._save, self._show = save, show
        self._loss, self._shown, self._title = metrics["loss"].name, metrics[shown].name, shown
        self._sums = [variable for metric in metrics.values() for variable in metric.variables]
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
            check_finite(float(logs[self._loss]))
            self._show(self._step, f"{self._title} {float(logs[self._shown]):.3f}")
        if self._save_steps and self._step % self._save_steps == 0 and self._step < self._steps:
            check_finite(float(logs[self._loss]))
            self._save(self.progress())
        self._clock = time.monotonic()


def check_finite(loss: float) -> float:
    """Returns the loss; CaptError if it is infinite or not a number."""
    if not math.isfinite(loss):
        raise CaptError("the loss is infinite or not a number", hint="Train again with a smaller learning_rate.")
    return loss
