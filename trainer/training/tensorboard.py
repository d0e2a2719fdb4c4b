"""Writes TensorBoard logs: one directory for the train split and one for validation, as the callback of Keras does."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow as tf

from trainer.runs.epoch_metrics import EpochMetrics

_VALIDATION = "val_"


class TensorBoardLogger:
    """Writes the metrics of each epoch for TensorBoard.

    Existing logs are written again from the history of the run, so that a resumed run shows every epoch once.

    Args:
        root: The directory of the logs.
        history: The finished epochs.
    """

    def __init__(self, root: Path, history: Sequence[EpochMetrics]) -> None:
        shutil.rmtree(root, ignore_errors=True)
        self._root = root
        self._writers: dict[str, tf.summary.SummaryWriter] = {}
        for metrics in history:
            self.add(metrics)

    def add(self, metrics: EpochMetrics) -> None:
        """Adds the metrics of one epoch."""
        values = metrics.values()
        validation = {name: values.pop(name) for name in list(values) if name.startswith(_VALIDATION)}
        self._write("train", metrics.epoch, values)
        self._write("validation", metrics.epoch, validation)

    def close(self) -> None:
        """Closes the files."""
        for writer in self._writers.values():
            writer.close()

    def _write(self, folder: str, epoch: int, values: Mapping[str, float]) -> None:
        if not values:
            return
        if folder not in self._writers:
            self._writers[folder] = tf.summary.create_file_writer(str(self._root / folder))
        with self._writers[folder].as_default():
            for name, value in values.items():
                tf.summary.scalar(f"epoch_{name.removeprefix(_VALIDATION)}", value, step=epoch)
        self._writers[folder].flush()
