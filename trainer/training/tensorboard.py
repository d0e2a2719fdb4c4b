"""Writes the metrics of a run for TensorBoard."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from trainer.runs.epoch_metrics import EpochMetrics


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
