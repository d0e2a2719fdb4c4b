"""Learning: one run, epoch by epoch, from where it stands to its last.

Every batch is a function of (seed, epoch, step), and a checkpoint keeps weights, optimizer, random generators and the
unfinished epoch's figures, so that a run that was killed and goes on gives what an unbroken one gives.
"""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from features.files import write
from features.progress import bar
from schemas.recipes import SHORT_FINGERPRINT
from trainer.augmentation import Augmentation
from trainer.batches import BatchReader, Order, epoch_order, plain_order, sampled_order, steps_an_epoch
from trainer.boards import Board
from trainer.checkpoints import Checkpoints, EpochFigures, Progress, random_states
from trainer.compiling import compiled_model
from trainer.data import CaptionData
from trainer.devices import computing_on
from trainer.directory import (
    CHECKPOINTS,
    LOGS,
    LOSS_PLOT,
    METRICS,
    RunRecord,
)
from trainer.judges import CiderJudge
from trainer.pixels import PixelNetwork
from trainer.plots import loss_figure, save_figure
from trainer.samples import Samples
from trainer.tables import Tables
from trainer.watching import StepWatcher, finite

_SCALE_IMAGES = 256

_log = logging.getLogger("capt.training")


class Learning:
    """One run, from where it stands to its last epoch.

    Args:
        root: Path. The run directory, begun and locked.
        record: RunRecord. What it is.
        tables: Tables. Where features come from.
        data: CaptionData. The captions.
        network: PixelNetwork or None. The extractor in the model, as a run on pixels begins with it.
    """

    def __init__(
        self, root: Path, record: RunRecord, tables: Tables, data: CaptionData, network: PixelNetwork | None = None
    ) -> None:
        self.root = root
        self.record = record
        self.data = data
        self.config = record.training
        self.steps = self.config.steps_per_epoch or steps_an_epoch(
            data.train, self.config.batch_size, self.config.captions_per_image
        )
        self.checkpoints = Checkpoints(root / CHECKPOINTS)
        self._reader = _reader(data, "train", tables)
        self._held_out = _reader(data, record.validation_split, tables) if record.validation_split else None
        self._words = tables.texts[0].vocabulary()
        self._tables = tables
        self._network = network
        self._augmentation = Augmentation.of(self.config)

    def run(self) -> dict[str, Any]:
        """Train to the last epoch; the figures that `train_captioner` returns."""
        with computing_on(self.config.devices):
            return self._run()

    def _run(self) -> dict[str, Any]:
        started = time.monotonic()
        self.model, self.metrics = compiled_model(self.root, self.record, self.steps)
        self._samples = self._make_samples()
        self._judge = self._make_judge()
        progress = self.checkpoints.load_last(self.model) or self._begin()
        resumed_at = self._total(progress)
        if resumed_at:
            _log.info("going on after %d epochs and %d steps", progress.epoch, progress.step)
        board = Board(self.root / LOGS, progress.history)
        self._write_metrics(progress.history)
        while progress.epoch < self.config.epochs and not self._gave_up(progress):
            progress = self._epoch(progress)
            self._samples.show(progress.epoch)
            self._write_metrics(progress.history)
            board.add(progress.history[-1])
        board.close()
        return self._figures(progress, resumed_at, time.monotonic() - started)

    def _gave_up(self, progress: Progress) -> bool:
        """Whether the last `stop_after` epochs were no better than one before."""
        best, patience = progress.best, self.config.stop_after
        return bool(best and patience and progress.step == 0 and progress.epoch - best.epoch >= patience)

    def _make_judge(self) -> CiderJudge | None:
        split = self.record.validation_split
        if self.config.judge == "loss" or split is None:
            return None
        return CiderJudge(self.model, self._tables, split, self.record.max_words)

    def _make_samples(self) -> Samples:
        reader = self._held_out or self._reader
        return Samples(self.model, reader, self._words, self.config.show_captions, self.record.max_words)

    def _begin(self) -> Progress:
        if self._network:
            self.model.feature_scale.network.set_weights(self._network.function.network.get_weights())
        counts = np.bincount(self.data.train.tokens, minlength=self.record.vocabulary)
        self.model.adapt(self._reader.sample(_SCALE_IMAGES), counts)
        return Progress(random=random_states(self.model))

    def _epoch(self, progress: Progress) -> Progress:
        order = self._order(progress.epoch)
        label = f"epoch {progress.epoch + 1} of {self.config.epochs}"
        with bar(label, self.steps, "steps") as show:
            watcher = StepWatcher(progress, self.steps, self.metrics, self._keep, self.config.checkpoint_every, show)
            change = self._augmentation and self._augmentation.of_epoch(progress.epoch)
            batches = self._reader.dataset(order, self.config.batch_size, progress.step, change)
            logs = self._fit(batches, watcher, progress.epoch)
        ended = self._ended(watcher.progress(), logs, captions=sum(map(len, order)))
        self.checkpoints.save(self.model, ended, self._total(ended))
        _say(ended.history[-1], self.config.epochs)
        return ended

    def _fit(self, batches: tf.data.Dataset, watcher: "StepWatcher", epoch: int) -> dict[str, float]:
        with _reading(self._reader):
            history = self.model.fit(
                batches, initial_epoch=epoch, epochs=epoch + 1, callbacks=[watcher], shuffle=False, verbose=0
            )
        return {name: values[-1] for name, values in history.history.items()}

    def _ended(self, progress: Progress, logs: dict[str, float], captions: int) -> Progress:
        figures = EpochFigures(
            epoch=progress.epoch + 1,
            loss=finite(logs["cross_entropy"]),
            accuracy=logs["accuracy"],
            **self._validate(),
            seconds=round(progress.seconds, 3),
            captions_per_second=round(captions / max(progress.seconds, 1e-9), 1),
        )
        history = (*progress.history, figures)
        return Progress(epoch=progress.epoch + 1, history=history, random=random_states(self.model))

    def _validate(self) -> dict[str, float]:
        if self._held_out is None:
            return {}
        size = self.config.batch_size
        batches = self._held_out.dataset(plain_order(self._held_out.captions, size), size)
        with _reading(self._held_out):
            logs = self.model.evaluate(batches, verbose=0, return_dict=True)
        figures = {"val_loss": finite(logs["cross_entropy"]), "val_accuracy": logs["accuracy"]}
        return figures | {"val_cider_d": self._judge()} if self._judge else figures

    def _order(self, epoch: int) -> Order:
        train, size, seed = self.data.train, self.config.batch_size, self.config.seed
        if self.config.steps_per_epoch:
            return sampled_order(train, size, seed, epoch, self.steps, self.config.captions_per_image)
        return epoch_order(train, size, seed, epoch, self.config.captions_per_image)

    def _keep(self, progress: Progress) -> None:
        self.checkpoints.save(self.model, progress, self._total(progress))

    def _total(self, progress: Progress) -> int:
        return progress.epoch * self.steps + progress.step

    def _write_metrics(self, history: Sequence[EpochFigures]) -> None:
        lines = "".join(json.dumps(figures.model_dump()) + "\n" for figures in history)
        write(self.root / METRICS, lines.encode())
        if history:
            save_figure(loss_figure(history), self.root / LOSS_PLOT)

    def _figures(self, progress: Progress, resumed_at: int, seconds: float) -> dict[str, Any]:
        best = progress.best
        assert best is not None
        return {
            "run": str(self.root),
            "model": self.record.model,
            "datasets": list(self.record.datasets),
            "features": self.record.features.fingerprint[:SHORT_FINGERPRINT],
            "text": [origin.fingerprint[:SHORT_FINGERPRINT] for origin in self.record.text],
            "captions": {split: len(captions) for split, captions in self.data.splits.items()},
            "without_features": self.data.without_features,
            "validation_split": self.record.validation_split,
            "epochs": progress.epoch,
            "steps": self._total(progress),
            "resumed_at": resumed_at,
            "best_epoch": best.epoch,
            **best.model_dump(exclude={"epoch", "seconds"}),
            "seconds": round(seconds, 3),
        }


@contextmanager
def _reading(reader: BatchReader) -> Iterator[None]:
    """Within the block, an error that tf.data passed on as text is raised as the CaptError that it was."""
    reader.error = None
    try:
        yield
    except tf.errors.OpError as error:
        if reader.error is None:
            raise
        raise reader.error from error


def _reader(data: CaptionData, split: str, tables: Tables) -> BatchReader:
    # TensorFlow's graphs take any shape; other backends compile each anew.
    words, images = (1, 1) if keras.backend.backend() == "tensorflow" else (4, 8)
    return BatchReader(data.splits[split], tables.features, round_words=words, round_images=images)


def _say(figures: EpochFigures, epochs: int) -> None:
    held_out = "" if figures.val_loss is None else f", validation {figures.val_loss:.3f}"
    _log.info(
        "epoch %d of %d: loss %.3f%s, %.0f captions/s, %.0f s",
        figures.epoch,
        epochs,
        figures.loss,
        held_out,
        figures.captions_per_second,
        figures.seconds,
    )
