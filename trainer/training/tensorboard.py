"""TensorBoard logs of a run: one folder for the train split, one for validation, as Keras' own callback has them."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow as tf

from trainer.training.epoch_metrics import EpochMetrics


class TensorBoardLogger:
    """Writes a run's figures for TensorBoard, a point an epoch.

    What is there already is written anew from the run's history, so a run that was killed and goes on shows every epoch
    once.

    Args:
        root: Path. The directory of the logs.
        history: sequence of EpochMetrics. The epochs finished so far.
    """

    def __init__(self, root: Path, history: Sequence[EpochMetrics]) -> None:
        shutil.rmtree(root, ignore_errors=True)
        self._root = root
        self._writers: dict[str, tf.summary.SummaryWriter] = {}
        for figures in history:
            self.add(figures)

    def add(self, figures: EpochMetrics) -> None:
        """Add one epoch's point to every curve."""
        held_out, others = "val_", ("epoch", "seconds", "val_seconds")
        values = {name: value for name, value in figures.model_dump().items() if name not in others}
        for folder, is_held_out in (("train", False), ("validation", True)):
            chosen = {name: value for name, value in values.items() if name.startswith(held_out) == is_held_out}
            self._write(folder, figures.epoch, {name.removeprefix(held_out): chosen[name] for name in chosen})

    def close(self) -> None:
        """Finish the files."""
        for writer in self._writers.values():
            writer.close()

    def _write(self, folder: str, epoch: int, values: Mapping[str, float | None]) -> None:
        known = {name: value for name, value in values.items() if value is not None}
        if not known:
            return
        if folder not in self._writers:
            self._writers[folder] = tf.summary.create_file_writer(str(self._root / folder))
        with self._writers[folder].as_default():
            for name, value in known.items():
                tf.summary.scalar(f"epoch_{name}", value, step=epoch)
        self._writers[folder].flush()
