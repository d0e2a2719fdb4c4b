"""Computes the losses and greedy predictions of the recognizer's heads.

ctc         a character or the blank per time step       CTC loss (Graves et al., ICML 2006)
attention   a character or the end per position          cross-entropy
cells       a character or nothing per cell              aggregation cross-entropy (Xie et al., 2019)
"""

import math
from typing import Any, Literal

from features.runtime.keras_settings import ops
from features.text.charset import BLANK

Head = Literal["ctc", "attention"]

# === Losses ===


def pad_labels(labels: Any, length: int) -> Any:
    """Returns character IDs int [B, L] as int32 [B, length], padded with 0; L is at most `length`."""
    labels = ops.cast(labels, "int32")
    return ops.pad(labels, [[0, 0], [0, length - labels.shape[1]]], constant_values=BLANK)


def ctc_losses(labels: Any, logits: Any) -> Any:
    """Returns minus the log-probability of each label over all its alignments, float32 [B], in nats.

    Labels are character IDs int32 [B, L], padded with 0, and logits are float32 [B, T, classes].
    """
    lengths = ops.sum(ops.cast(ops.not_equal(labels, BLANK), "int32"), axis=1)
    return ops.ctc_loss(labels, logits, lengths, ops.full_like(lengths, ops.shape(logits)[1]), mask_index=BLANK)


def position_losses(labels: Any, logits: Any, label_smoothing: float = 0.0) -> Any:
    """Returns the cross-entropy of the characters and the ends after them, summed over positions, float32 [B], in nats.

    Labels are the result of `pad_labels`, int32 [B, L], and logits are float32 [B, L, classes].
    """
    classes = logits.shape[-1]
    targets = ops.one_hot(labels, classes)
    targets = (1 - label_smoothing) * targets + label_smoothing / classes
    return ops.sum(ops.categorical_crossentropy(targets, logits, from_logits=True), axis=1)


def ace_losses(labels: Any, logits: Any) -> Any:
    """Returns the aggregation cross-entropy (ACE) of Xie et al. (2019, arXiv:1904.08364), float32 [B].

    The probabilities of a class, summed over all cells, are compared with its number of occurrences in the label; the
    probabilities of class 0 with the number of remaining cells. Arguments as in `ctc_losses`.
    """
    cells, classes = logits.shape[1:]
    characters = ops.sum(ops.one_hot(labels, classes), axis=1)[:, BLANK + 1 :]
    # A label may have more characters than there are cells.
    remaining = ops.maximum(cells - ops.sum(characters, axis=1, keepdims=True), 0)
    counts = ops.concatenate([remaining, characters], axis=1)
    log_means = ops.logsumexp(ops.log_softmax(logits, axis=-1), axis=1) - math.log(cells)
    return -ops.sum(counts * log_means, axis=1)


# === Greedy decoding ===


def decode_greedily(head: Head, logits: Any) -> tuple[Any, Any]:
    """Predicts each label by its most probable characters, from logits float32 [B, T, classes].

    With `ctc`, repeated characters are merged and blanks removed. With `attention`, ends follow the characters.

    Returns:
        Character IDs int32 [B, T], padded with 0, and the log-probability float32 [B] of the label over all alignments.
    """
    if head == "attention":
        return _find_best_label(logits)
    ids = greedy_ids(head, logits)
    return ids, -ctc_losses(ids, ops.cast(logits, "float32"))


def greedy_ids(head: Head, logits: Any) -> Any:
    """Returns only the character IDs of `decode_greedily`, which is faster."""
    if head == "attention":
        return _find_best_label(logits)[0]
    time_steps = ops.shape(logits)[1]
    lengths = ops.full_like(ops.argmax(logits[:, 0], axis=-1), time_steps, dtype="int32")
    decoded, _ = ops.ctc_decode(logits, lengths, strategy="greedy", mask_index=BLANK)
    # Keras pads with −1.
    return ops.maximum(ops.reshape(ops.cast(decoded, "int32"), (-1, time_steps)), BLANK)


def greedy_confidence(head: Head, logits: Any, ids: Any) -> Any:
    """Returns the probability of each character of `decode_greedily`, float32 [B, T], 0 for padding.

    With `ctc` it is the highest one among the time steps that are merged to the character, with `attention` that of the
    character at its position (`trainer.decoding.character_confidence`).
    """
    probabilities = ops.softmax(ops.cast(logits, "float32"), axis=-1)
    if head == "attention":
        own = ops.squeeze(ops.take_along_axis(probabilities, ops.expand_dims(ids, 2), axis=2), 2)
        return ops.where(ops.equal(ids, BLANK), 0.0, own)
    best, own = ops.cast(ops.argmax(probabilities, axis=-1), "int32"), ops.max(probabilities, axis=-1)
    before = ops.pad(best[:, :-1], [[0, 0], [1, 0]], constant_values=BLANK)
    is_character = ops.not_equal(best, BLANK)
    begins = ops.logical_and(is_character, ops.not_equal(best, before))
    # Number of the character that a time step belongs to, from 1.
    character = ops.expand_dims(ops.where(is_character, ops.cumsum(ops.cast(begins, "int32"), axis=1), 0), 2)
    positions = 1 + ops.arange(ops.shape(ids)[1])
    return ops.max(ops.where(ops.equal(character, positions), ops.expand_dims(own, 2), 0.0), axis=1)


def _find_best_label(logits: Any) -> tuple[Any, Any]:
    log_probabilities = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    characters = 1 + ops.cast(ops.argmax(log_probabilities[..., 1:], axis=-1), "int32")
    best = ops.cumsum(ops.pad(ops.max(log_probabilities[..., 1:], axis=-1), [[0, 0], [1, 0]]), axis=1)
    ends = ops.cumsum(ops.pad(log_probabilities[..., BLANK], [[0, 0], [1, 0]]), axis=1)
    # Score of the best label with n characters, for each n from 0: n characters, then ends.
    scores = best + ends[:, -1:] - ends
    length = ops.cast(ops.argmax(scores, axis=1), "int32")
    ids = ops.where(ops.arange(ops.shape(characters)[1]) < ops.expand_dims(length, 1), characters, BLANK)
    return ids, ops.max(scores, axis=1)
