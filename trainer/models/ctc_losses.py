"""Losses of a word in an image: of its letters in frames, at positions, and anywhere; in nats, one an image."""

import math
from typing import Any

from features.runtime.keras_settings import ops
from trainer.models.charset import BLANK, CLASSES


def padded(words: Any, longest: int) -> Any:
    """Letter ids int [B, L] as int32 [B, longest], filled with 0; L is at most `longest`."""
    words = ops.cast(words, "int32")
    return ops.pad(words, [[0, 0], [0, longest - words.shape[1]]], constant_values=BLANK)


def ctc_losses(words: Any, logits: Any) -> Any:
    """Minus the log-probability of each word over all its alignments, float32 [B] (Graves et al., ICML 2006).

    Args:
        words: int32 [B, L]. Letter ids, padded with 0.
        logits: float32 [B, T, 27].
    """
    lengths = ops.sum(ops.cast(ops.not_equal(words, BLANK), "int32"), axis=1)
    frames = ops.full_like(lengths, ops.shape(logits)[1])
    return ops.ctc_loss(words, logits, lengths, frames, mask_index=BLANK)


def position_losses(words: Any, logits: Any, label_smoothing: float = 0.0) -> Any:
    """Cross entropy of a word's letters and of the nothing after them, added over its positions, float32 [B].

    Args:
        words: int32 [B, positions]. Letter ids, padded with 0.
        logits: float32 [B, positions, 27].
        label_smoothing: float. Share of each target that is spread over all classes.
    """
    targets = ops.one_hot(words, CLASSES)
    targets = (1 - label_smoothing) * targets + label_smoothing / CLASSES
    return ops.sum(ops.categorical_crossentropy(targets, logits, from_logits=True), axis=1)


def ace_losses(words: Any, logits: Any) -> Any:
    """Cross entropy of how often each letter comes anywhere in an image, added over its cells, float32 [B].

    The aggregation cross-entropy of Xie et al. (2019, arXiv:1904.08364): the cells' probabilities of a class together
    are to be the number of times that the word has it, and of nothing the number of the other cells.

    Args:
        words: int32 [B, L]. Letter ids, padded with 0.
        logits: float32 [B, cells, 27].
    """
    cells = logits.shape[1]
    letters = ops.sum(ops.one_hot(words, CLASSES), axis=1)[:, BLANK + 1 :]
    nothing = cells - ops.sum(letters, axis=1, keepdims=True)
    counts = ops.concatenate([nothing, letters], axis=1)
    shares = ops.logsumexp(ops.log_softmax(logits, axis=-1), axis=1) - math.log(cells)
    return -ops.sum(counts * shares, axis=1)
