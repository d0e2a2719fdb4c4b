"""Learning: one run, epoch by epoch, from where it stands to its last.

Every batch is a function of (seed, epoch, step), and a checkpoint keeps weights, optimizer, random generators and the
unfinished epoch's figures, so that a run that was killed and goes on gives what an unbroken one gives.

What differs between tasks is a `Lesson`: `trainer.tasks.captioning_training` and `trainer.tasks.recognition_training`.
"""

import json
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import tensorflow as tf
from matplotlib.figure import Figure

from features.io.atomic_files import write
from features.runtime.keras_settings import apply_settings, keras
from features.runtime.numerics import warn_about_emulation
from schemas.table_config import SHORT_FINGERPRINT
from schemas.terminal.progress import progress_bar
from trainer.reports.plots import save_figure
from trainer.runs.directory import CHECKPOINTS, LOGS, LOSS_PLOT, METRICS
from trainer.runs.metadata import RunMetadata
from trainer.training.callbacks import EtaEstimator, StepCallback, check_finite
from trainer.training.checkpoints import Checkpoints, Figures, Progress, random_states
from trainer.training.devices import device_scope
from trainer.training.ema import ema_weights
from trainer.training.tensorboard import TensorBoardLogger

_log = logging.getLogger("capt.training")

# Seconds. A drawing takes a third of one, as much as a short epoch.
_DRAWN_EVERY = 10.0


@dataclass(frozen=True)
class Epoch:
    """One pass.

    Args:
        records: int. Captions, or images with a word each, that it shows.
        batches: function from the first step to the batches from there on, as `keras.Model.fit` takes them.
    """

    records: int
    batches: Callable[[int], tf.data.Dataset]


class TrainingTask(Protocol):
    """What a task has a run learn, and how that is judged.

    Attributes:
        unit: str. What is counted: `captions` or `images`.
        steps: int. Steps an epoch.
        figures: type. What an epoch gives.
    """

    unit: str
    steps: int
    figures: type[Figures]

    def compiled(self) -> tuple[keras.Model, list[keras.Metric]]:
        """The model with weights drawn from the seed, compiled; what it measures: the loss, and the accuracy."""

    def begin(self, model: keras.Model) -> None:
        """Make the model ready for its first step, once in a run."""

    def epoch(self, number: int) -> Epoch:
        """One pass, by number from 0; a function of the seed and the number."""

    def held_out(self) -> tf.data.Dataset | None:
        """The batches that the model is validated on; None without a split for it."""

    def judge(self) -> dict[str, float]:
        """What else is told of the model after a pass, by names of `figures`."""

    def show(self, epoch: int) -> None:
        """Show what the model can do after so many epochs."""

    def reading(self) -> AbstractContextManager[None]:
        """A block within which batches are read."""

    def plot(self, history: Sequence[Figures]) -> Figure:
        """The run as a picture."""

    def told(self) -> dict[str, Any]:
        """What the training command says of the data."""


class TrainingLoop:
    """One run, from where it stands to its last epoch.

    Args:
        root: Path. The run directory, begun and locked.
        record: RunMetadata. What it is.
        lesson: Lesson. What it learns.
    """

    def __init__(self, root: Path, record: RunMetadata, lesson: TrainingTask) -> None:
        self.root = root
        self.metadata = record
        self.lesson = lesson
        self.config = record.training
        self.checkpoints = Checkpoints(root / CHECKPOINTS)

    def run(self) -> dict[str, Any]:
        """Train to the last epoch; the figures that the training command returns."""
        apply_settings()
        if keras.distribution.list_devices()[0].startswith("cpu"):
            warn_about_emulation(self.config.precision)
        with device_scope(self.config.devices):
            return self._run()

    def _run(self) -> dict[str, Any]:
        started = time.monotonic()
        self.model, self.metrics = self.lesson.compiled()
        progress = self.checkpoints.load_last(self.model) or self._begin()
        resumed_at = self._total(progress)
        if resumed_at:
            _log.info("going on after %d epochs and %d steps", progress.epoch, progress.step)
        self._next_drawing = time.monotonic() + _DRAWN_EVERY
        self._pace = EtaEstimator(resumed_at, self.config.epochs * self.lesson.steps)
        board = TensorBoardLogger(self.root / LOGS, progress.history)
        self._write_metrics(progress.history)
        while progress.epoch < self.config.epochs and not self._gave_up(progress):
            progress = self._epoch(progress)
            self.lesson.show(progress.epoch)
            self._write_metrics(progress.history)
            if time.monotonic() >= self._next_drawing:
                self._draw(progress.history)
            board.add(progress.history[-1])
        self._draw(progress.history)
        board.close()
        return self._figures(progress, resumed_at, time.monotonic() - started)

    def _gave_up(self, progress: Progress) -> bool:
        """Whether the last `early_stopping_patience` epochs were no better than one before."""
        best, patience = progress.best, self.config.early_stopping_patience
        return bool(best and patience and progress.step == 0 and progress.epoch - best.epoch >= patience)

    def _begin(self) -> Progress:
        self.lesson.begin(self.model)
        return Progress(random=random_states(self.model))

    def _epoch(self, progress: Progress) -> Progress:
        epoch = self.lesson.epoch(progress.epoch)
        label = f"epoch {progress.epoch + 1} of {self.config.epochs}"
        before = progress.epoch * self.lesson.steps

        def show(step: int, note: str) -> None:
            left = self._pace.left(before + step)
            show_records(min(step * self.config.batch_size, epoch.records), f"{note}, {left}" if left else note)

        with progress_bar(label, epoch.records, self.lesson.unit) as show_records:
            watcher = StepCallback(progress, self.lesson.steps, self.metrics, self._keep, self.config.save_steps, show)
            logs = self._fit(epoch.batches(progress.step), watcher, progress.epoch)
        ended = self._ended(watcher.progress(), logs, epoch.records)
        self.checkpoints.save(self.model, ended, self._total(ended))
        self._say(ended)
        return ended

    def _fit(self, batches: tf.data.Dataset, watcher: StepCallback, epoch: int) -> dict[str, float]:
        with self.lesson.reading():
            history = self.model.fit(
                batches, initial_epoch=epoch, epochs=epoch + 1, callbacks=[watcher], shuffle=False, verbose=0
            )
        return {name: values[-1] for name, values in history.history.items()}

    def _ended(self, progress: Progress, logs: dict[str, float], records: int) -> Progress:
        rate = records / max(progress.seconds, 1e-9)
        figures = self.lesson.figures(
            epoch=progress.epoch + 1,
            **self._measured(logs),
            **self._validate(),
            seconds=round(progress.seconds, 3),
            **{f"{self.lesson.unit}_per_second": round(rate, 1)},
        )
        history = (*progress.history, figures)
        return Progress(epoch=progress.epoch + 1, history=history, random=random_states(self.model))

    def _measured(self, logs: dict[str, float]) -> dict[str, float]:
        loss, accuracy = (logs[metric.name] for metric in self.metrics)
        return {"loss": check_finite(loss), "accuracy": accuracy}

    def _validate(self) -> dict[str, float]:
        batches = self.lesson.held_out()
        if batches is None:
            return {}
        started = time.monotonic()
        with ema_weights(self.model), self.lesson.reading():
            logs = self.model.evaluate(batches, verbose=0, return_dict=True)
            others = self.lesson.judge()
        measured = {f"val_{name}": value for name, value in self._measured(logs).items()}
        return {**measured, **others, "val_seconds": round(time.monotonic() - started, 3)}

    def _keep(self, progress: Progress) -> None:
        self.checkpoints.save(self.model, progress, self._total(progress))

    def _total(self, progress: Progress) -> int:
        return progress.epoch * self.lesson.steps + progress.step

    def _say(self, progress: Progress) -> None:
        left = self._pace.left(self._total(progress))
        summary = progress.history[-1].summary + (f", {left}" if left else "")
        _log.info("epoch %d of %d: %s", progress.epoch, self.config.epochs, summary)

    def _write_metrics(self, history: Sequence[Figures]) -> None:
        lines = "".join(json.dumps(figures.model_dump()) + "\n" for figures in history)
        write(self.root / METRICS, lines.encode())

    def _draw(self, history: Sequence[Figures]) -> None:
        save_figure(self.lesson.plot(history), self.root / LOSS_PLOT)
        self._next_drawing = time.monotonic() + _DRAWN_EVERY

    def _figures(self, progress: Progress, resumed_at: int, seconds: float) -> dict[str, Any]:
        best = progress.best
        assert best is not None
        return {
            "run": str(self.root),
            "model": self.metadata.model,
            "datasets": list(self.metadata.datasets),
            "features": self.metadata.features.fingerprint[:SHORT_FINGERPRINT],
            **self.lesson.told(),
            "validation_split": self.metadata.validation_split,
            "epochs": progress.epoch,
            "steps": self._total(progress),
            "resumed_at": resumed_at,
            "best_epoch": best.epoch,
            **best.model_dump(exclude={"epoch", "seconds", "val_seconds"}),
            "seconds": round(seconds, 3),
        }
