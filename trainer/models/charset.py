"""The alphabet: words of the letters a to z as ids, and back; id 0 is CTC's blank and fills words up to one length."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BLANK = 0
CHARACTERS = "abcdefghijklmnopqrstuvwxyz"
CLASSES = 1 + len(CHARACTERS)

_IDS = {letter: id_ for id_, letter in enumerate(CHARACTERS, start=BLANK + 1)}


def encode(words: Sequence[str]) -> NDArray[np.int32]:
    """Letter ids of words, int32 [N, longest]: a is 1 … z is 26, padded with 0 to the longest word.

    Args:
        words: sequence of str. Of the letters a to z.

    Raises:
        ValueError: a word has another character.
    """
    ids = np.full((len(words), max(map(len, words), default=0)), BLANK, np.int32)
    for row, word in zip(ids, words, strict=True):
        try:
            row[: len(word)] = [_IDS[letter] for letter in word]
        except KeyError as error:
            raise ValueError(f"{word!r}: {error.args[0]!r} is no letter from a to z") from None
    return ids


def decode(ids: NDArray[np.int32]) -> list[str]:
    """The words of letter ids int32 [N, L]; zeros say nothing."""
    return ["".join(CHARACTERS[id_ - 1] for id_ in row if id_ != BLANK) for row in np.asarray(ids).tolist()]
