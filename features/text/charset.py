"""The characters of a set of labels, and their IDs; ID 0 is the blank of CTC and the padding.

A character is a code point of the label in NFC (composed form), in logical order: the order in which the text is
written and stored, also from right to left. A combining mark that NFC keeps apart is a character of its own.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

BLANK = 0


def normalize_label(text: str, *, fold_case: bool = False) -> str:
    """Returns a label in NFC.

    `fold_case` replaces each character by its case folding where that is one character: `ẞ` becomes `ß`, and `ß`, which
    would become `ss`, stays.
    """
    composed = unicodedata.normalize("NFC", text)
    if not fold_case:
        return composed
    folded = "".join(_fold_character(character) for character in composed)
    return unicodedata.normalize("NFC", folded)


def count_characters(labels: Iterable[str]) -> dict[str, int]:
    """Returns how often each character occurs in labels, in the order of their code points."""
    counts = Counter[str]()
    for label in labels:
        counts.update(normalize_label(label))
    return dict(sorted(counts.items()))


@dataclass(frozen=True)
class Charset:
    """Characters in the order of their code points; the first one has ID 1.

    Example:
        charset = Charset.from_labels(["cab", "null"])   # characters ("a", "b", "c", "l", "n", "u")
        charset.encode(["cab"])                          # [[3, 1, 2]]
    """

    characters: tuple[str, ...]

    def __post_init__(self) -> None:
        ordered = tuple(sorted(set(self.characters)))
        if not ordered or ordered != self.characters or any(len(character) != 1 for character in ordered):
            raise ValueError("a charset needs at least one character, each once, in the order of the code points")

    @classmethod
    def from_labels(cls, labels: Iterable[str]) -> "Charset":
        """Returns the characters that occur in labels."""
        return cls(tuple(count_characters(labels)))

    @property
    def num_classes(self) -> int:
        """Number of IDs: the blank and the characters."""
        return 1 + len(self.characters)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {character: id_ for id_, character in enumerate(self.characters, start=BLANK + 1)}

    def find_unknown(self, labels: Iterable[str]) -> tuple[str, ...]:
        """Returns the characters of labels that the charset lacks, in the order of their code points."""
        return tuple(character for character in count_characters(labels) if character not in self._ids)

    def encode(self, labels: Sequence[str]) -> NDArray[np.int32]:
        """Returns the character IDs of labels, int32 [N, longest], padded with 0.

        Raises:
            ValueError: A label has a character that the charset lacks.
        """
        composed = [normalize_label(label) for label in labels]
        ids = np.full((len(composed), max(map(len, composed), default=0)), BLANK, np.int32)
        for row, label in zip(ids, composed, strict=True):
            try:
                row[: len(label)] = [self._ids[character] for character in label]
            except KeyError as error:
                raise ValueError(f"{label!r}: the charset lacks {error.args[0]!r}") from None
        return ids

    def decode(self, ids: NDArray[np.integer]) -> list[str]:
        """Returns the labels of character IDs [N, L], without the zeros."""
        return ["".join(self.characters[id_ - 1] for id_ in row if id_ != BLANK) for row in np.asarray(ids).tolist()]


def _fold_character(character: str) -> str:
    folded = character.casefold()
    if len(folded) != 1:  # `ẞ` folds to `ss`, its lower case is `ß`
        folded = character.lower()
    return folded if len(folded) == 1 else character
