"""Orders the characters of a label from left to right, as a recognizer reads an image.

A label is stored in logical order. Hebrew, Arabic and other right-to-left scripts are displayed in the opposite order,
but Latin letters and digits among them from left to right: the Unicode bidirectional algorithm (UAX #9) for one line
whose direction is right to left, with punctuation that follows this direction.
"""

import unicodedata
from collections.abc import Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from features.text.charset import Charset

_RIGHT_TO_LEFT = frozenset({"R", "AL"})
_LEFT_TO_RIGHT = frozenset({"L", "EN", "AN"})


def is_right_to_left(character: str) -> bool:
    """Returns whether a character belongs to a right-to-left script."""
    return unicodedata.bidirectional(character) in _RIGHT_TO_LEFT


def is_left_to_right(character: str) -> bool:
    """Returns whether a character is displayed from left to right among right-to-left ones."""
    return unicodedata.bidirectional(character) in _LEFT_TO_RIGHT


def visual_positions(text: str) -> list[int]:
    """Returns the positions of the characters of a text from left to right.

    The order of a displayed text gives the logical order in the same way, because the function is its own inverse.
    """
    positions = list(range(len(text)))
    if not any(map(is_right_to_left, text)):
        return positions
    runs = (list(run) for _, run in groupby(reversed(positions), lambda position: is_left_to_right(text[position])))
    return [position for run in runs for position in (run[::-1] if is_left_to_right(text[run[0]]) else run)]


def encode_visually(charset: Charset, labels: Sequence[str]) -> NDArray[np.int32]:
    """Returns the character IDs of labels in NFC from left to right, int32 [N, longest], padded with 0.

    Raises:
        ValueError: A label has a character that the charset lacks.
    """
    ids = charset.encode(labels)
    for row, label in zip(ids, labels, strict=True):
        row[: len(label)] = row[visual_positions(label)]
    return ids


def decode_visually(charset: Charset, ids: NDArray[np.int32]) -> list[str]:
    """Returns the labels of character IDs from left to right [N, L], without the zeros."""
    return ["".join(text[position] for position in visual_positions(text)) for text in charset.decode(ids)]
