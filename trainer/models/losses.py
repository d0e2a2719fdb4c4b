"""Loss and metrics over real tokens: a position whose target is padding (id 0) counts in none of them.

What else counts in none is for the model to say, see `left_out` in `trainer.models.captioner`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from features.runtime.keras_settings import keras, ops
from schemas.table_config import PAD, START, UNKNOWN

# What no caption is made of, whatever the model's logits say.
NEVER_GENERATED = (PAD, UNKNOWN, START)


def token_losses(targets: Any, logits: Any, left_out: Sequence[int] = (PAD,)) -> tuple[Any, Any]:
    """Cross entropy of each word, and which words are real.

    Args:
        targets: int32 [B, T]. Word ids, 0 for padding.
        logits: float [B, T, V]. Finite.
        left_out: sequence of int. Ids that are no words.

    Returns:
        float32 [B, T] in nats, and the mask float32 [B, T]: 1 for a word, 0 for padding.
    """
    targets, below = _ids(targets), _below_likeliest(logits)
    return _log_sum_exp(below) - _of_targets(below, targets), real_tokens(targets, left_out)


def real_tokens(targets: Any, left_out: Sequence[int] = (PAD,)) -> Any:
    """Mask float32 [B, T] of word ids int32 [B, T]: 1 for a word, 0 for the ids that are left out."""
    mask = 1.0
    for token in left_out:
        mask *= ops.cast(ops.not_equal(targets, token), "float32")
    return mask


@keras.saving.register_keras_serializable("capt")
class MaskedCrossEntropy(keras.losses.Loss):
    """Mean cross entropy of a batch's real tokens, in nats; a scalar, so a batch's padding cannot dilute it.

    Args:
        label_smoothing: float. Share of each target that is spread evenly over the words that may be said (Szegedy et
            al., 2016, arXiv:1512.00567).
        left_out: sequence of int. Ids whose positions do not count.

    Call arguments:
        y_true: int32 [B, T]. Word ids, 0 for padding.
        y_pred: float [B, T, V]. Logits.
    """

    def __init__(
        self,
        label_smoothing: float = 0.0,
        left_out: Sequence[int] = (PAD,),
        name: str = "masked_cross_entropy",
        **kwargs: Any,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.label_smoothing = label_smoothing
        self.left_out = tuple(left_out)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        losses, mask = token_losses(y_true, y_pred, self.left_out)
        if self.label_smoothing:
            losses += self.label_smoothing * (even_losses(y_pred) - losses)
        return ops.sum(losses * mask) / ops.maximum(ops.sum(mask), 1.0)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "label_smoothing": self.label_smoothing, "left_out": self.left_out}


def even_losses(logits: Any) -> Any:
    """Cross entropy with a target that is spread evenly over the words that may be said.

    Args:
        logits: float [B, T, V].

    Returns:
        float32 [B, T] in nats.
    """
    below = _below_likeliest(logits)
    share = np.ones(below.shape[-1], np.float32)
    share[list(NEVER_GENERATED)] = 0
    return _log_sum_exp(below) - ops.matmul(below, share / share.sum())


def _ids(targets: Any) -> Any:
    # Keras hands a loss its targets as floats and a metric as they are; in one form, a compiler finds that both want
    # the same cross entropy and computes it once (5 % of a training step on the CPU).
    return ops.cast(ops.cast(targets, "float32"), "int32")


# Elementwise over the logits, this takes 11 ms of a core for 1,088 words of 5,000, forth and back; TensorFlow's fused
# cross entropy takes 19, Keras' argmax 7 beside it, and picking the targets' logits by index as long as all the rest.


def _below_likeliest(logits: Any) -> Any:
    """How far each logit is below the largest of its word: float32 [B, T, V], at most 0."""
    logits = ops.cast(logits, "float32")
    return logits - ops.stop_gradient(ops.max(logits, axis=-1, keepdims=True))


def _log_sum_exp(below: Any) -> Any:
    """The logarithm of Σ exp over the last axis, of numbers at most 0 one of which is 0: float32 [B, T]."""
    return ops.log(ops.sum(ops.exp(below), axis=-1))


def _of_targets(values: Any, targets: Any) -> Any:
    """The values float32 [B, T, V] at the ids int32 [B, T]: float32 [B, T]."""
    return ops.sum(values * ops.one_hot(targets, values.shape[-1], dtype="float32"), axis=-1)


@keras.saving.register_keras_serializable("capt")
class CrossEntropy(keras.metrics.Mean):
    """Mean cross entropy over all real tokens seen, in nats; batches count by their tokens, not alike.

    Args:
        left_out: sequence of int. Ids whose positions do not count.
    """

    def __init__(self, left_out: Sequence[int] = (PAD,), name: str = "cross_entropy", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.left_out = tuple(left_out)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        losses, mask = token_losses(y_true, y_pred, self.left_out)
        return super().update_state(losses, sample_weight=mask)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "left_out": self.left_out}


@keras.saving.register_keras_serializable("capt")
class MaskedAccuracy(keras.metrics.Mean):
    """Share of the real tokens seen whose logit is the largest, 0 to 1.

    Args:
        left_out: sequence of int. Ids whose positions do not count.
    """

    def __init__(self, left_out: Sequence[int] = (PAD,), name: str = "accuracy", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.left_out = tuple(left_out)

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        targets = _ids(y_true)
        hits = ops.equal(_of_targets(_below_likeliest(y_pred), targets), 0.0)
        mask = real_tokens(targets, self.left_out)
        return super().update_state(ops.cast(hits, "float32"), sample_weight=mask)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "left_out": self.left_out}
