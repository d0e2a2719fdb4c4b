"""Scores of words read: whole words, letters by the alignment of least edits, and how sure one can be of a share."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.models.charset import CHARACTERS

NONE = len(CHARACTERS)
_NORMAL_95 = 1.959963984540054  # quantile of the normal distribution that leaves 5 % outside, on both sides


@dataclass(frozen=True)
class RecognitionScores:
    """Words read, held against those that the images say.

    Args:
        truth: tuple of str. What each image says.
        read: tuple of str. What was read in it.
    """

    truth: tuple[str, ...]
    read: tuple[str, ...]

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """Of each image whether every letter is right."""
        return np.array([a == b for a, b in zip(self.truth, self.read, strict=True)], bool)

    @cached_property
    def alignments(self) -> list[list[tuple[str, str]]]:
        """Of each image the letters said and read, see `aligned`."""
        return [align(a, b) for a, b in zip(self.truth, self.read, strict=True)]

    @cached_property
    def edits(self) -> NDArray[np.int64]:
        """Of each image the letters to change, add or take away."""
        return np.array([sum(a != b for a, b in pairs) for pairs in self.alignments], np.int64)

    def figures(self) -> dict[str, Any]:
        """`right`, `accuracy`, its `interval` of 95 % (Wilson), and `character_error_rate`: edits a letter said."""
        right, images = int(self.right.sum()), len(self.truth)
        return {
            "right": right,
            "accuracy": right / images,
            "interval": wilson_interval(right, images),
            "character_error_rate": int(self.edits.sum()) / sum(map(len, self.truth)),
        }

    def by_length(self) -> dict[int, tuple[int, int]]:
        """Words right and words, by how many letters the image says."""
        lengths = np.array([len(word) for word in self.truth])
        return {
            int(length): (int(self.right[lengths == length].sum()), int((lengths == length).sum()))
            for length in np.unique(lengths)
        }

    def by_letter(self) -> dict[str, tuple[int, int]]:
        """Letters read right and letters said, by letter, as the words align."""
        counts = self._counts(range(len(self.truth)))
        said = counts.sum(axis=1)
        return {letter: (int(counts[i, i]), int(said[i])) for i, letter in enumerate(CHARACTERS) if said[i]}

    def confusion(self) -> NDArray[np.int64]:
        """How often one letter was read for another in words read wrong, int64 [27, 27].

        Rows are letters said, columns letters read; the last row counts letters read that nobody said, the last column
        letters that were missed.
        """
        return self._counts(np.flatnonzero(~self.right))

    def _counts(self, images: Any) -> NDArray[np.int64]:
        counts = np.zeros((NONE + 1, NONE + 1), np.int64)
        for image in images:
            for said, read in self.alignments[image]:
                counts[_place(said), _place(read)] += 1
        return counts


def align(truth: str, read: str) -> list[tuple[str, str]]:
    """Letters said beside letters read, with the fewest edits (Levenshtein, 1966); "" where there is none.

    Of alignments with equally few, the one that pairs letters latest.
    """
    costs = np.zeros((len(truth) + 1, len(read) + 1), int)
    costs[:, 0], costs[0] = np.arange(len(truth) + 1), np.arange(len(read) + 1)
    for i, said in enumerate(truth, 1):
        for j, seen in enumerate(read, 1):
            costs[i, j] = min(costs[i - 1, j - 1] + (said != seen), costs[i - 1, j] + 1, costs[i, j - 1] + 1)
    return _path(truth, read, costs)


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """The interval of 95 % of a share: `right` of `total` (Wilson, 1927)."""
    if not total:
        return 0.0, 1.0
    share, weight = right / total, _NORMAL_95**2 / total
    middle = (share + weight / 2) / (1 + weight)
    half = _NORMAL_95 * np.sqrt(share * (1 - share) / total + weight / (4 * total)) / (1 + weight)
    # At the ends the sums are 0 and 1 but for rounding.
    return float(middle - half) if right else 0.0, float(middle + half) if right < total else 1.0


def worst_first(scores: Sequence[float], edits: Sequence[int]) -> list[int]:
    """Numbers of the images read wrong: most edits first, of equal ones those that the model was surest of."""
    wrong = [image for image, count in enumerate(edits) if count]
    return sorted(wrong, key=lambda image: (-edits[image], -scores[image], image))


def _path(truth: str, read: str, costs: NDArray[np.int_]) -> list[tuple[str, str]]:
    pairs = []
    i, j = len(truth), len(read)
    while i or j:
        if i and j and costs[i, j] == costs[i - 1, j - 1] + (truth[i - 1] != read[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((truth[i], read[j]))
        elif i and costs[i, j] == costs[i - 1, j] + 1:
            i -= 1
            pairs.append((truth[i], ""))
        else:
            j -= 1
            pairs.append(("", read[j]))
    return pairs[::-1]


def _place(letter: str) -> int:
    return CHARACTERS.index(letter) if letter else NONE
