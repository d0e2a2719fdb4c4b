"""Orders the characters of a label from left to right, as a recognizer reads an image.

A label is stored in logical order. Hebrew, Arabic and other right-to-left scripts are displayed in the opposite order,
but Latin letters and digits among them from left to right: the Unicode bidirectional algorithm (UAX #9) for one line
whose direction is right to left.

    label → words of Latin letters and digits → words that a character joins → all reversed, but not within joined words

One character between two words joins them in these cases, as in the rules W2, W4 and N1 of UAX #9. Other characters
follow the direction of the line.

    two words with letters               a space, punctuation or symbol     ab-cd
    two words of European digits         + - . , : / and the like           12-34, 1.5
    two words of Arabic-Indic digits     . , : / and the like

By W2, European digits whose last letter before them is an Arabic one are Arabic-Indic digits in these rules, so the
parts of `12-34` are exchanged after an Arabic letter, but not before it.

The number before a letter is to its right in the displayed text, so the two directions have a function each.
`trainer.export.run_graph.find_logical_order` is `logical_positions` in TensorFlow.
"""

import unicodedata
from collections.abc import Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from features.text.charset import Charset

# Bidirectional classes of UAX #9, as `unicodedata.bidirectional` returns them.
RIGHT_TO_LEFT = ("R", "AL")
LEFT_TO_RIGHT = ("L", "EN", "AN")
STRONG = ("L", *RIGHT_TO_LEFT)
NEUTRAL = ("ES", "CS", "ET", "ON", "WS")


def is_right_to_left(character: str) -> bool:
    """Returns whether a character belongs to a right-to-left script."""
    return unicodedata.bidirectional(character) in RIGHT_TO_LEFT


def visual_positions(text: str) -> list[int]:
    """Returns the positions of the characters of a text in logical order from left to right."""
    return _reverse(text, _find_forward(_list_classes(text)))


def logical_positions(shown: str) -> list[int]:
    """Returns the positions of the characters of a text from left to right in logical order."""
    # Words follow each other from right to left. It does not matter that they are mirrored then.
    return _reverse(shown, _find_forward(_list_classes(shown)[::-1])[::-1])


def _list_classes(text: str) -> list[str]:
    return list(map(unicodedata.bidirectional, text))


def _reverse(text: str, is_forward: Sequence[bool]) -> list[int]:
    """Returns the positions in reverse, but those of a run of forward characters as they are."""
    positions = list(range(len(text)))
    if not any(map(is_right_to_left, text)):
        return positions
    runs = (list(run) for _, run in groupby(reversed(positions), is_forward.__getitem__))
    return [position for run in runs for position in (run[::-1] if is_forward[run[0]] else run)]


def _find_forward(classes: Sequence[str]) -> list[bool]:
    """Returns for each bidirectional class whether its character is in a word, or joins two words.

    The words are in logical order; the order of the characters within joined words does not matter.
    """
    kinds: list[str] = []
    is_arabic = False  # the last letter, as in W2
    for is_word, run in groupby(classes, LEFT_TO_RIGHT.__contains__):
        found = list(run)
        kinds += [_classify_word(found, is_arabic) if is_word else ""] * len(found)
        for one in found:
            is_arabic = one == "AL" if one in STRONG else is_arabic
    inner = zip(classes[1:-1], kinds, kinds[2:], strict=False)
    joins = [False, *(_joins(one, before, after) for one, before, after in inner), False]
    return [one in LEFT_TO_RIGHT or is_joining for one, is_joining in zip(classes, joins, strict=False)]


def _classify_word(classes: Sequence[str], is_after_arabic: bool) -> str:
    """Returns `L` for a word with letters, `EN` or `AN` for one of equal digits, and "" for one of different digits."""
    if "L" in classes:
        return "L"
    if is_after_arabic:
        return "AN"
    return classes[0] if len(set(classes)) == 1 else ""


def _joins(one: str, before: str, after: str) -> bool:
    """Returns whether a character of a bidirectional class joins the words of two kinds beside it."""
    if before != after:
        return False
    if before == "L":
        return one in NEUTRAL
    return (before in ("EN", "AN") and one == "CS") or (before == "EN" and one == "ES")


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
    return ["".join(text[position] for position in logical_positions(text)) for text in charset.decode(ids)]
