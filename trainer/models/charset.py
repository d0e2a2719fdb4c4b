"""Converts labels of the characters a to z to IDs and back; ID 0 is the blank of CTC and the padding."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BLANK = 0
CHARACTERS = "abcdefghijklmnopqrstuvwxyz"
NUM_CLASSES = 1 + len(CHARACTERS)

_IDS = {character: id_ for id_, character in enumerate(CHARACTERS, start=BLANK + 1)}


def encode(labels: Sequence[str]) -> NDArray[np.int32]:
    """Returns the character IDs of labels, int32 [N, longest]: 1 for a to 26 for z, padded with 0.

    Raises:
        ValueError: A label has another character.
    """
    ids = np.full((len(labels), max(map(len, labels), default=0)), BLANK, np.int32)
    for row, label in zip(ids, labels, strict=True):
        try:
            row[: len(label)] = [_IDS[character] for character in label]
        except KeyError as error:
            raise ValueError(f"{label!r}: {error.args[0]!r} is not a character from a to z") from None
    return ids


def decode(ids: NDArray[np.int32]) -> list[str]:
    """Returns the labels of character IDs int32 [N, L], without the zeros."""
    return ["".join(CHARACTERS[id_ - 1] for id_ in row if id_ != BLANK) for row in np.asarray(ids).tolist()]
