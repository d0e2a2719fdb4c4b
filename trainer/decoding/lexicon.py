"""Lexicon: how likely each word of a list is in an image, exactly, all words at once.

    words → tree of their prefixes;  a prefix's probability, frame by frame, from its own and its parent's

The forward algorithm of CTC (Graves et al., ICML 2006) over a tree instead of one word: what two words begin with is
computed once.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainer.models.charset import BLANK, encode

# The logarithm of 0, with which one can still count.
_NEVER = np.float32(-1e30)
_IMAGES = 16


class Lexicon:
    """Words that an image may show.

    Args:
        words: sequence of str. Of the letters a to z, each once.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self._ids = encode(self.words)
        prefixes = {"": 0}
        for word in self.words:
            for end in range(1, len(word) + 1):
                prefixes.setdefault(word[:end], len(prefixes))
        self._parents = np.array([prefixes[prefix[:-1]] for prefix in prefixes])
        self._letters = np.concatenate([[BLANK], encode([prefix[-1] for prefix in list(prefixes)[1:]]).ravel()])
        self._doubles = self._letters == self._letters[self._parents]
        self._ends = np.array([prefixes[word] for word in self.words], np.int64)

    def in_frames(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """The log-probability of every word over all its alignments.

        Args:
            frames: float32 array [B, T, 27]. Log-probabilities of blank and letters.

        Returns:
            float32 array [B, words]; −10³⁰ for a word that T frames have no room for.
        """
        blocks = range(0, len(frames), _IMAGES)
        made = [self._forward(np.transpose(frames[i : i + _IMAGES], (1, 2, 0))) for i in blocks]
        return np.concatenate([np.empty((0, len(self.words)), np.float32), *made])

    def _forward(self, frames: NDArray[np.float32]) -> NDArray[np.float32]:
        """The same of frames [T, 27, B]."""
        on_letter = np.full((len(self._letters), frames.shape[2]), _NEVER)
        on_blank = on_letter.copy()
        on_blank[0] = 0
        for frame in frames:
            # A doubled letter begins anew only after a blank.
            before = np.where(self._doubles[:, None], _NEVER, on_letter[self._parents])
            begins = _either(before, on_blank[self._parents])
            on_blank, on_letter = (
                _either(on_blank, on_letter) + frame[BLANK],
                _either(on_letter, begins) + frame[self._letters],
            )
            on_letter[0] = _NEVER
        return np.maximum(_either(on_blank, on_letter)[self._ends].T, _NEVER)

    def at_positions(self, positions: NDArray[np.float32]) -> NDArray[np.float32]:
        """The log-probability of every word that is read position by position.

        Args:
            positions: float32 array [B, L, 27]. Log-probabilities of nothing and of letters.

        Returns:
            float32 array [B, words]; −10³⁰ for a word of more than L letters.
        """
        most = positions.shape[1]
        fits = (self._ids[:, most:] == BLANK).all(axis=1)
        ids = np.zeros((len(self.words), most), np.int32)
        ids[:, : self._ids.shape[1]] = self._ids[:, :most]
        return np.where(fits, positions[:, np.arange(most), ids].sum(axis=2), _NEVER)


def _either(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """log(exp(one) + exp(other))."""
    # NumPy's own logaddexp takes five times as long.
    return np.maximum(one, other) + np.log(1 + np.exp(-np.abs(one - other)))
