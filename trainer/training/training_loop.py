"""Trains a run epoch by epoch, from its last checkpoint to its last epoch.

Every batch is a function of (seed, epoch, step). A checkpoint contains weights, optimizer, random generators and the
metrics of the unfinished epoch. So a resumed run has the same result as an uninterrupted run.
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from features.io.atomic_files import write
from features.runtime.keras_settings import apply_settings, keras
from features.runtime.machine import describe_machine
from features.runtime.numerics import warn_about_emulation
from schemas.errors import UsageError
from schemas.terminal.progress import progress_bar
from trainer.data.feature_reader import raise_read_errors
from trainer.figures.figure_files import save_figure
from trainer.models.ema import ema_weights
from trainer.runs.checkpoints import Checkpoints, Progress, random_states
from trainer.runs.directory import CHECKPOINTS, LOGS, LOSS_PLOT, MACHINE, METRICS
from trainer.runs.epoch_metrics import EpochMetrics
from trainer.training.step_callback import StepCallback, check_finite
from trainer.training.tensorboard import TensorBoardLogger
from trainer.training.training_job import TrainingJob
from trainer.training.training_result import TrainingResult

_log = logging.getLogger("capt.training")

# Plotting takes a third of a second, as long as a short epoch.
_PLOT_SECONDS = 10.0
_FEW_SECONDS = 100


class TrainingLoop:
    """Trains one run, whose directory is started and locked, to its last epoch."""

    def __init__(self, root: Path, job: TrainingJob[Any, Any]) -> None:
        self.root, self.job, self.config = root, job, job.config
        self.checkpoints = Checkpoints(root / CHECKPOINTS)

    def run(self) -> TrainingResult:
        """Trains to the last epoch and returns the result of the training command."""
        apply_settings()
        if keras.distribution.list_devices()[0].startswith("cpu"):
            warn_about_emulation(self.config.precision)
        with _device_scope(self.config.devices):
            return self._run()

    def _run(self) -> TrainingResult:
        started = time.monotonic()
        self.model, metrics = self.job.compile_model()
        self.metrics = dict(zip(self.job.metric_names, metrics, strict=True))
        progress = self.checkpoints.load_last(self.model)
        if progress is None:
            self.job.initialize(self.model)
            progress = Progress(random=random_states(self.model))
        resumed_at = self._count_steps(progress)
        if resumed_at:
            _log.info("Resuming from epoch %d, step %d.", progress.epoch, progress.step)
        self._next_plot = time.monotonic() + _PLOT_SECONDS
        self._eta = EtaEstimator(resumed_at, self.config.num_epochs * self.job.steps)
        tensorboard = TensorBoardLogger(self.root / LOGS, progress.history)
        self._write_metrics(progress.history)
        write(self.root / MACHINE, f"{json.dumps(describe_machine(), indent=1)}\n".encode())
        while progress.epoch < self.config.num_epochs and not progress.stops_early(self.config.early_stopping_patience):
            progress = self._train_epoch(progress)
            self.job.log_samples(progress.epoch)
            self._write_metrics(progress.history)
            if time.monotonic() >= self._next_plot:
                self._plot(progress.history)
            tensorboard.add(progress.history[-1])
        self._plot(progress.history)
        tensorboard.close()
        finished = self.job.finish()
        summary = finished | self._summarize(progress, resumed_at, time.monotonic() - started)
        return TrainingResult(summary, progress.history, type(self.job).plot)

    def _train_epoch(self, progress: Progress) -> Progress:
        epoch = self.job.epoch(progress.epoch)
        label = f"epoch {progress.epoch + 1} of {self.config.num_epochs}"
        before = progress.epoch * self.job.steps

        def show(step: int, note: str) -> None:
            left = self._eta.left(before + step)
            records = min(step * self.job.records_per_step, epoch.records)
            show_records(records, f"{note}, {left}" if left else note)

        with progress_bar(label, epoch.records, self.job.unit) as show_records:
            callback = StepCallback(
                progress,
                self.job.steps,
                self.metrics,
                self._save,
                self.config.save_steps,
                show,
                self.job.shown_metric,
            )
            with raise_read_errors(*self.job.readers):
                logs = self.job.fit(self.model, epoch, progress, callback)
        progress = self._finish_epoch(callback.progress(), logs, epoch.records)
        self._save(progress)
        left = self._eta.left(self._count_steps(progress))
        note = f", {left}" if left else ""
        _log.info("epoch %d of %d: %s%s", progress.epoch, self.config.num_epochs, progress.history[-1], note)
        return progress

    def _finish_epoch(self, progress: Progress, logs: dict[str, float], records: int) -> Progress:
        values = self._name_metrics(logs, self.metrics) | self._validate()
        values |= self.job.derived_metrics(progress.epoch, values)
        metrics = EpochMetrics(
            epoch=progress.epoch + 1,
            **values,
            seconds=round(progress.seconds, 3),
            **{f"{self.job.unit}_per_second": round(records / max(progress.seconds, 1e-9), 1)},
            monitored=self.job.monitored(values),
        )
        history = (*progress.history, metrics)
        return Progress(epoch=progress.epoch + 1, history=history, random=random_states(self.model))

    @staticmethod
    def _name_metrics(logs: dict[str, float], metrics: Mapping[str, keras.Metric]) -> dict[str, float]:
        check_finite(logs[metrics["loss"].name])
        return {name: logs[metric.name] for name, metric in metrics.items()}

    def _validate(self) -> dict[str, float]:
        batches = self.job.validation_batches()
        if batches is None:
            return {}
        started = time.monotonic()
        with ema_weights(self.model), raise_read_errors(*self.job.readers):
            logs = self.model.evaluate(batches, verbose=0, return_dict=True)
            values = self._name_metrics(logs, self.job.validation_metrics or self.metrics)
            values |= self.job.extra_validation_metrics()
        seconds = round(time.monotonic() - started, 3)
        return {**{f"val_{name}": value for name, value in values.items()}, "val_seconds": seconds}

    def _save(self, progress: Progress) -> None:
        self.checkpoints.save(self.model, progress, self._count_steps(progress), self.config.keep_epochs)

    def _count_steps(self, progress: Progress) -> int:
        return progress.epoch * self.job.steps + progress.step

    def _write_metrics(self, history: Sequence[EpochMetrics]) -> None:
        lines = "".join(json.dumps(metrics.to_dict()) + "\n" for metrics in history)
        write(self.root / METRICS, lines.encode())

    def _plot(self, history: Sequence[EpochMetrics]) -> None:
        save_figure(self.job.plot(history, from_zero=self.config.plot_from_zero), self.root / LOSS_PLOT)
        self._next_plot = time.monotonic() + _PLOT_SECONDS

    def _summarize(self, progress: Progress, resumed_at: int, seconds: float) -> dict[str, Any]:
        best, metadata = progress.best, self.job.metadata
        assert best is not None
        return {
            "run_dir": str(self.root),
            "model": metadata.model,
            "datasets": list(metadata.datasets),
            "feature_table": metadata.features.fingerprint,
            "caption_tables": [origin.fingerprint for origin in metadata.caption_tables],
            **self.job.summary(),
            "validation_split": metadata.validation_split,
            "epochs": progress.epoch,
            "steps": self._count_steps(progress),
            "resumed_at": resumed_at,
            "best_epoch": best.epoch,
            **best.values(),
            "seconds": round(seconds, 3),
        }


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


def _device_scope(devices: str) -> AbstractContextManager[object]:
    """Returns a context for `one` device, or one that distributes each batch over `all` devices of JAX."""
    if devices == "one":
        return nullcontext()
    if keras.backend.backend() != "jax":
        raise UsageError(
            f"Keras does not distribute batches over devices with the backend {keras.backend.backend()}",
            location="devices: all",
            hint="Set KERAS_BACKEND=jax, or devices: one.",
        )
    distribution: AbstractContextManager[object] = keras.distribution.DataParallel(auto_shard_dataset=False).scope()
    return distribution
