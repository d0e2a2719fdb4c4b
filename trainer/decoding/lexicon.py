"""Computes the exact probability of every word of a word list in an image, all words at once.

    words → tree of their prefixes;  per time step, a prefix's probability from its own and its parent's

The forward algorithm of CTC (Graves et al., ICML 2006) on a prefix tree, so that common prefixes are computed once.
"""

import numpy as np
from numpy.typing import NDArray

from features.text.charset import BLANK
from trainer.decoding.log_probabilities import LOG_ZERO, log_add

_BATCH_SIZE = 16


class Lexicon:
    """A word list.

    Args:
        ids: Character IDs of distinct words from left to right, int32 [words, longest], padded with 0.
    """

    def __init__(self, ids: NDArray[np.int32]) -> None:
        self.ids = ids
        prefixes: dict[tuple[int, ...], int] = {(): 0}
        spelled = [tuple(id_ for id_ in row if id_ != BLANK) for row in ids.tolist()]
        for word in spelled:
            for end in range(1, len(word) + 1):
                prefixes.setdefault(word[:end], len(prefixes))
        self._parents = np.array([prefixes[prefix[:-1]] for prefix in prefixes])
        self._characters = np.array([prefix[-1] if prefix else BLANK for prefix in prefixes])
        self._is_double = self._characters == self._characters[self._parents]
        self._ends = np.array([prefixes[word] for word in spelled], np.int64)

    def score_time_steps(self, log_probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the log-probability float32 [B, words] of every word over all its CTC alignments.

        `log_probabilities` are float32 [B, T, classes]; class 0 is the blank. A word that is too long for T time steps
        has −10³⁰.
        """
        starts = range(0, len(log_probabilities), _BATCH_SIZE)
        batches = (log_probabilities[i : i + _BATCH_SIZE].transpose(1, 2, 0) for i in starts)
        return np.concatenate([np.empty((0, len(self.ids)), np.float32), *map(self._forward, batches)])

    def _forward(self, time_steps: NDArray[np.float32]) -> NDArray[np.float32]:
        """Runs the forward algorithm on time steps [T, classes, B]."""
        on_character = np.full((len(self._characters), time_steps.shape[2]), LOG_ZERO)
        on_blank = on_character.copy()
        on_blank[0] = 0
        for step in time_steps:
            # A repeated character begins only after a blank.
            before = np.where(self._is_double[:, None], LOG_ZERO, on_character[self._parents])
            begins = log_add(before, on_blank[self._parents])
            on_blank, on_character = (
                log_add(on_blank, on_character) + step[BLANK],
                log_add(on_character, begins) + step[self._characters],
            )
            on_character[0] = LOG_ZERO
        scores: NDArray[np.float32] = np.maximum(log_add(on_blank, on_character)[self._ends].T, LOG_ZERO)
        return scores

    def score_positions(self, log_probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the log-probability float32 [B, words] of every word with one character per position.

        `log_probabilities` are float32 [B, L, classes]; class 0 is the end. A word of more than L characters has −10³⁰.
        """
        positions = log_probabilities.shape[1]
        is_too_long = (self.ids[:, positions:] != BLANK).any(axis=1)
        ids = np.zeros((len(self.ids), positions), np.int32)
        ids[:, : self.ids.shape[1]] = self.ids[:, :positions]
        scores: NDArray[np.float32] = log_probabilities[:, np.arange(positions), ids].sum(axis=2)
        scores[:, is_too_long] = LOG_ZERO
        return scores
