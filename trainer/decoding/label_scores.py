"""Computes the log-probability of one label per image.

ctc         the sum over all its alignments, by the forward algorithm (Graves et al., ICML 2006)
attention   the product of the probabilities of its characters and ends

`trainer.decoding.lexicon` does the same for all words of a list, and `trainer.models.recognizer_heads` in a graph. This
is NumPy: TensorFlow reports an error if a process computes CTC losses of labels of two lengths.
"""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from features.text.charset import BLANK
from trainer.decoding.character_confidence import find_skips, interleave
from trainer.decoding.log_probabilities import LOG_ZERO, log_add

if TYPE_CHECKING:
    from trainer.models.recognizer_heads import Head


def score_labels(head: "Head", log_probabilities: NDArray[np.float32], ids: NDArray[np.int32]) -> NDArray[np.float32]:
    """Returns the log-probability of each label, float32 [B].

    `log_probabilities` are float32 [B, T, classes] of the head; `ids` are int32 [B, L], padded with 0, labels that fit
    into T time steps. A label of more characters than positions has −10³⁰.
    """
    return (_score_alignments if head == "ctc" else _score_positions)(log_probabilities, ids)


def _score_alignments(log_probabilities: NDArray[np.float32], ids: NDArray[np.int32]) -> NDArray[np.float32]:
    classes, skips = interleave(ids), find_skips(ids)
    own = np.take_along_axis(log_probabilities, classes[:, None], axis=2).astype(np.float64)
    scores = np.full(classes.shape, LOG_ZERO, np.float64)
    scores[:, :2] = own[:, 0, :2]
    for step in own[:, 1:].swapaxes(0, 1):
        padded = np.pad(scores, ((0, 0), (2, 0)), constant_values=LOG_ZERO)
        skipped = np.where(skips, padded[:, :-2], LOG_ZERO)
        scores = log_add(log_add(scores, padded[:, 1:-1]), skipped) + step
    last = 2 * (ids != BLANK).sum(axis=1, keepdims=True)
    ends = np.take_along_axis(scores, np.concatenate([last, np.maximum(last - 1, 0)], axis=1), axis=1)
    ends[:, 1] = np.where(last[:, 0] > 0, ends[:, 1], LOG_ZERO)
    return log_add(ends[:, 0], ends[:, 1]).astype(np.float32)


def _score_positions(log_probabilities: NDArray[np.float32], ids: NDArray[np.int32]) -> NDArray[np.float32]:
    positions = log_probabilities.shape[1]
    padded = np.full((len(ids), positions), BLANK, np.int32)
    length = min(positions, ids.shape[1])
    padded[:, :length] = ids[:, :length]
    own: NDArray[np.float32] = np.take_along_axis(log_probabilities, padded[..., None], axis=2)[..., 0]
    is_too_long = (ids[:, length:] != BLANK).any(axis=1)
    return np.where(is_too_long, LOG_ZERO, own.sum(axis=1, dtype=np.float64)).astype(np.float32)
