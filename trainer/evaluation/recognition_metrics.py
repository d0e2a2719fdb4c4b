"""Computes recognition metrics: exact match, character error rate (CER), confusion, and Wilson intervals."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.metrics.calibration import expected_calibration_error

_NORMAL_95 = 1.959963984540054  # two-sided 95% quantile of the normal distribution


@dataclass(frozen=True)
class RecognitionScores:
    """Compares the prediction for each image with its label."""

    labels: tuple[str, ...]
    predictions: tuple[str, ...]

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each prediction equals its label, bool [N]."""
        return np.array([a == b for a, b in zip(self.labels, self.predictions, strict=True)], bool)

    @cached_property
    def alignments(self) -> list[list[tuple[str, str]]]:
        """The character pairs of each image; see `align`."""
        return [align(a, b) for a, b in zip(self.labels, self.predictions, strict=True)]

    @cached_property
    def edits(self) -> NDArray[np.int64]:
        """The edit distance of each image, int64 [N]."""
        return np.array([sum(a != b for a, b in pairs) for pairs in self.alignments], np.int64)

    @property
    def exact_match(self) -> float:
        """The fraction of correct predictions."""
        return float(self.correct.mean())

    def measure_characters(self, confidences: Sequence[Sequence[float]]) -> float | None:
        """Computes the expected calibration error of predicted characters; None if no character is predicted.

        A character is correct if it is aligned with an equal one. `confidences` has one probability per character of
        each prediction.
        """
        correct = np.array([want == got for want, got in chain.from_iterable(self.alignments) if got], bool)
        return expected_calibration_error(np.concatenate(confidences), correct) if len(correct) else None

    def to_dict(self) -> dict[str, Any]:
        """Returns `correct`, `exact_match`, its 95% Wilson `interval`, and `cer` (edits per label character)."""
        correct = int(self.correct.sum())
        return {
            "correct": correct,
            "exact_match": self.exact_match,
            "interval": wilson_interval(correct, len(self.correct)),
            "cer": int(self.edits.sum()) / sum(map(len, self.labels)),
        }

    def by_length(self) -> dict[int, dict[str, int]]:
        """Returns the numbers of `correct` images and in `total` by label length."""
        lengths = np.array(list(map(len, self.labels)))
        each = {int(length): self.correct[lengths == length] for length in np.unique(lengths)}
        return {length: {"correct": int(one.sum()), "total": len(one)} for length, one in each.items()}

    def by_character(self) -> dict[str, dict[str, int]]:
        """Returns the numbers of `correct` occurrences and in `total` by character of the labels."""
        correct, total = Counter[str](), Counter[str]()
        for want, got in chain.from_iterable(self.alignments):
            total[want] += 1
            correct[want] += want == got
        return {name: {"correct": correct[name], "total": total[name]} for name in sorted(total) if name}

    def confusion(self, charset: Sequence[str], max_characters: int) -> tuple[list[str], NDArray[np.int64]]:
        """Returns the characters of the confusion matrix of the images with errors, and the matrix, int64 [N+1, N+1].

        Rows are characters of the label, columns characters of the prediction. The last row counts inserted
        characters, the last column deleted ones.

        Args:
            charset: Characters that the predictions may have.
            max_characters: Limit of characters, of which those with the most errors are kept.
        """
        pairs = Counter(chain.from_iterable(compress(self.alignments, ~self.correct)))
        errors = Counter[str]()
        for (want, got), count in pairs.items():
            if want != got:
                errors.update({want: count, got: count})
        names = sorted({*charset, *chain.from_iterable(pairs)} - {""})
        names = sorted(sorted(names, key=lambda name: -errors[name])[:max_characters])
        index = {name: number for number, name in enumerate([*names, ""])}
        counts = np.zeros((len(index), len(index)), np.int64)
        for (want, got), count in pairs.items():
            if want in index and got in index:
                counts[index[want], index[got]] += count
        return names, counts


def align(label: str, prediction: str) -> list[tuple[str, str]]:
    """Aligns two texts with the fewest edits (Levenshtein, 1966); "" stands for a missing character.

    Among alignments with equally few edits, the one with the latest pairs is returned.
    """
    costs = np.zeros((len(label) + 1, len(prediction) + 1), int)
    costs[:, 0], costs[0] = np.arange(len(label) + 1), np.arange(len(prediction) + 1)
    for i, a in enumerate(label, 1):
        for j, b in enumerate(prediction, 1):
            costs[i, j] = min(costs[i - 1, j - 1] + (a != b), costs[i - 1, j] + 1, costs[i, j - 1] + 1)
    pairs = []
    i, j = len(label), len(prediction)
    while i or j:
        if i and j and costs[i, j] == costs[i - 1, j - 1] + (label[i - 1] != prediction[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((label[i], prediction[j]))
        elif i and costs[i, j] == costs[i - 1, j] + 1:
            i -= 1
            pairs.append((label[i], ""))
        else:
            j -= 1
            pairs.append(("", prediction[j]))
    return pairs[::-1]


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """Computes the 95% confidence interval of the fraction `correct` / `total` (Wilson, 1927)."""
    if not total:
        return 0.0, 1.0
    fraction, weight = correct / total, _NORMAL_95**2 / total
    center = (fraction + weight / 2) / (1 + weight)
    half = _NORMAL_95 * np.sqrt(fraction * (1 - fraction) / total + weight / (4 * total)) / (1 + weight)
    # Without rounding errors, the bounds would be exactly 0 and 1 at the ends.
    return float(center - half) if correct else 0.0, float(center + half) if correct < total else 1.0


def rank_correct(scores: Sequence[float], edits: Sequence[int]) -> list[int]:
    """Returns the numbers of the images without errors, highest log-probability first."""
    correct = [image for image, count in enumerate(edits) if not count]
    return sorted(correct, key=lambda image: (-scores[image], image))


def rank_errors(scores: Sequence[float], edits: Sequence[int]) -> list[int]:
    """Returns the numbers of the images with errors: most edits first, then highest log-probability first."""
    wrong = [image for image, count in enumerate(edits) if count]
    return sorted(wrong, key=lambda image: (-edits[image], -scores[image], image))
