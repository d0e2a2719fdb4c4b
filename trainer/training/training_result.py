"""Defines the result of a training command."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from trainer.runs.epoch_metrics import EpochMetrics


class TrainingResult(dict[str, Any]):
    """The result of a training command: the dictionary that `--json` prints, with the metrics of every epoch.

    Example:
        trained = capt.train_captioner(store="S", run_dir="R")
        trained["best_epoch"]
        trained.history[-1]["val_loss"]
        trained.plot()                      # in a notebook, the last value of a cell is shown

    Attributes:
        history: The metrics of each epoch by name, as in `metrics.jsonl`.
    """

    def __init__(self, values: Mapping[str, Any], epochs: Sequence[EpochMetrics], draw: Callable[..., Figure]) -> None:
        super().__init__(values)
        self.history = [metrics.to_dict() for metrics in epochs]
        self._epochs, self._draw = epochs, draw

    def plot(self, *, from_zero: bool = False) -> Figure:
        """Plots the metrics by epoch, as in `loss.png`; `from_zero` begins the axes of the values at 0."""
        return self._draw(self._epochs, from_zero=from_zero)
