"""Computes how probable each character of a predicted label is, by itself.

attention   the probability of the character at its position
ctc         the highest probability of the character among the time steps that the most probable alignment of the
label gives to it
"""

import numpy as np
from numpy.typing import NDArray

from features.text.charset import BLANK
from trainer.decoding.log_probabilities import LOG_ZERO


def position_confidences(log_probabilities: NDArray[np.float32], ids: NDArray[np.int32]) -> NDArray[np.float32]:
    """Returns the confidence of each character, float32 [B, L], 0 for padding.

    `log_probabilities` are float32 [B, positions, classes] of the attention head; `ids` are int32 [B, L], padded with
    0, with at most as many characters as positions.
    """
    positions = min(ids.shape[1], log_probabilities.shape[1])
    ids = ids[:, :positions]
    own = np.take_along_axis(log_probabilities[:, :positions], ids[..., None], axis=2)[..., 0]
    return np.where(ids == BLANK, 0, np.exp(own)).astype(np.float32)


def alignment_confidences(log_probabilities: NDArray[np.float32], ids: NDArray[np.int32]) -> NDArray[np.float32]:
    """Returns the confidence of each character, float32 [B, L], 0 for padding.

    `log_probabilities` are float32 [B, T, classes] of the CTC head; `ids` are int32 [B, L], padded with 0, labels that
    fit into T time steps.
    """
    batch, length = ids.shape
    states = _align(log_probabilities, ids)
    own = np.take_along_axis(log_probabilities, np.take_along_axis(interleave(ids), states, axis=1)[..., None], axis=2)
    confidences = np.zeros((batch, length), np.float32)
    images, steps = np.nonzero(states % 2)
    np.maximum.at(confidences, (images, states[images, steps] // 2), np.exp(own[images, steps, 0]))
    return confidences


def interleave(ids: NDArray[np.int32]) -> NDArray[np.int32]:
    """Returns the classes of the states of an alignment: a blank before, between and after the characters."""
    classes = np.full((len(ids), 2 * ids.shape[1] + 1), BLANK, np.int32)
    classes[:, 1::2] = ids
    return classes


def find_skips(ids: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Returns the states that an alignment may enter from two states before, bool [B, 2 L + 1].

    They are the characters that differ from the previous one, so that no blank is needed between.
    """
    skips = np.zeros((len(ids), 2 * ids.shape[1] + 1), bool)
    skips[:, 3::2] = ids[:, 1:] != ids[:, :-1]
    return skips


def _align(log_probabilities: NDArray[np.float32], ids: NDArray[np.int32]) -> NDArray[np.int64]:
    """Returns the states of the most probable alignment, int64 [B, T], by the Viterbi algorithm."""
    classes, skips = interleave(ids), find_skips(ids)
    batch, states = classes.shape
    rows, steps = np.arange(batch), log_probabilities.shape[1]
    scores = np.full((batch, states), LOG_ZERO, np.float32)
    scores[:, :2] = np.take_along_axis(log_probabilities[:, 0], classes[:, :2], axis=1)
    moves = np.zeros((steps, batch, states), np.int8)
    for step in range(1, steps):
        padded = np.pad(scores, ((0, 0), (2, 0)), constant_values=LOG_ZERO)
        before = np.stack([scores, padded[:, 1:-1], np.where(skips, padded[:, :-2], LOG_ZERO)])
        moves[step] = before.argmax(axis=0)
        scores = before.max(axis=0) + np.take_along_axis(log_probabilities[:, step], classes, axis=1)
    last = 2 * (ids != BLANK).sum(axis=1)
    state = np.where((last > 0) & (scores[rows, last - 1] > scores[rows, last]), last - 1, last)
    path = np.empty((batch, steps), np.int64)
    for step in reversed(range(steps)):
        path[:, step] = state
        state = state - moves[step, rows, state]
    return path
