"""Figures: what one epoch of a run gave; a line of metrics.jsonl."""

from typing import Any

from schemas.frozen import Frozen


class EpochMetrics(Frozen):
    """What every run tells of an epoch; a task adds its own.

    Args:
        epoch: int. Which pass, from 1.
        loss: float. Mean loss of the pass, in nats, dropout on and weights still moving.
        accuracy: float. Share of the pass that was right, 0 to 1.
        val_loss, val_accuracy: float or None. The same on the validation split after the pass; None without one.
        seconds: float. Time of the training pass.
        val_seconds: float or None. Time of the validation after it; None without one, and in runs of an older capt.
    """

    epoch: int
    loss: float
    accuracy: float
    val_loss: float | None = None
    val_accuracy: float | None = None
    seconds: float
    val_seconds: float | None = None

    @property
    def judged(self) -> Any:
        """What the best epoch has least of; comparable within a run."""
        return self.loss if self.val_loss is None else self.val_loss

    @property
    def summary(self) -> str:
        """The figures in a line, for the log."""
        held_out = "" if self.val_loss is None else f", validation {self.val_loss:.3f}"
        return f"loss {self.loss:.3f}{held_out}"


class CaptionerMetrics(EpochMetrics):
    """What an epoch of a captioner gave: cross entropy and accuracy of the real words.

    Args:
        val_cider_d: float or None. CIDEr-D of greedy captions of the validation split; None where the run is judged by
            the loss.
        captions_per_second: float. Captions of the pass by its time.
    """

    val_cider_d: float | None = None
    captions_per_second: float

    @property
    def judged(self) -> float:
        """CIDEr-D with its sign turned, validation loss, or training loss."""
        return super().judged if self.val_cider_d is None else -self.val_cider_d

    @property
    def summary(self) -> str:
        """The losses, and how fast it went."""
        return f"{super().summary}, {self.captions_per_second:.0f} captions/s, {self.seconds:.0f} s"


class RecognizerMetrics(EpochMetrics):
    """What an epoch of a recognizer gave: loss a word, and the share of words read right in every letter.

    Args:
        images_per_second: float. Images of the pass by its time.
    """

    images_per_second: float

    @property
    def judged(self) -> tuple[float, float]:
        """Words read wrong, then the loss: on the validation split, or on the train split where there is none."""
        if self.val_accuracy is None:
            return -self.accuracy, self.loss
        return -self.val_accuracy, super().judged

    @property
    def summary(self) -> str:
        """The losses, the words read right, and how fast it went."""
        held_out = "" if self.val_accuracy is None else f", of validation {100 * self.val_accuracy:.2f} %"
        right = f"words right {100 * self.accuracy:.1f} %{held_out}"
        return f"{super().summary}, {right}, {self.images_per_second:.0f} images/s, {self.seconds:.0f} s"
