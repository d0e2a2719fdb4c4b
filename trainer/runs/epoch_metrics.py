"""Defines the metrics of one epoch, a line of metrics.jsonl."""

from typing import Any

from schemas.frozen import Frozen

_NOT_LOGGED = {"epoch", "seconds", "val_seconds", "monitored"}


class EpochMetrics(Frozen, extra="allow"):
    """The metrics of one epoch; a task adds its own, such as `token_accuracy` and `val_token_accuracy`.

    During the epoch, dropout is active and the weights change, so `loss` and `val_loss` are not comparable.
    """

    epoch: int  # from 1
    loss: float  # mean, in nats; with `objective: cider_d` the mean of Σ advantage · −log p per token
    val_loss: float | None = None
    seconds: float
    val_seconds: float | None = None
    monitored: tuple[float, ...]  # select the best epoch: smaller is better, later values break ties

    def to_dict(self) -> dict[str, Any]:
        """Returns the metrics by name."""
        return self.model_dump(exclude={"monitored"})

    def values(self) -> dict[str, float]:
        """Returns the metrics that are curves over epochs, by name."""
        values = self.model_dump(exclude=_NOT_LOGGED)
        return {name: value for name, value in values.items() if value is not None}

    def __str__(self) -> str:
        values = ", ".join(f"{name} {value:.4g}" for name, value in self.values().items())
        return f"{values}, {self.seconds:.0f} s"
