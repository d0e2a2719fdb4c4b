"""Tests whether the characters of labels depend on their neighbors, beyond what their positions say about them.

In words they do: a `q` is followed by a `u`. In random labels they do not, even if some characters are more frequent
than others, or if every label begins with a 2. The statistic is the mutual information of neighbors given their
positions,

    I = Σ_p n_p · I(character at p; character at p + 1) / Σ_p n_p        p: position; n_p: labels with both characters

Few labels of many characters have a high I by chance alone. Therefore I is compared with those of permuted labels: the
characters at each position are distributed at random over the labels that have this position. This keeps lengths and
the frequencies at each position, and is exact for any number of labels. How much of a character its neighbor tells is
the adjusted mutual information (Vinh et al. 2010, JMLR 11), (I − E) / (H − E), with the mean E of the permutations and
the entropy H of the characters, the highest possible I. Of thousands of characters, most pairs occur once even by
chance, so E is near H, and I / H would say little.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from schemas.choices import LanguageModel

MIN_LABELS = 100
_MAX_LABELS = 10_000  # which show any dependence that a recognizer gains from
_PERMUTATIONS = 99
_MAX_P_VALUE = 0.01
# Labels of many characters, none of which has one twice, depend on their neighbors, too, but a network gains next to
# nothing from it: of 36 characters, 0.8% of the information. Of 10 digits it is 4.6%.
_MIN_FRACTION = 0.02
_ROUNDING = 1e-9  # relative; far above the rounding errors of sums of entropies
_NONE = -1  # position after the end of a label


@dataclass(frozen=True)
class LabelDependence:
    """The dependence of neighboring characters in labels.

    Args:
        labels: Number of labels that were tested.
        fraction: Adjusted mutual information, at most 1: the fraction of the information of a character that its
            neighbor tells, 0 by chance.
        p_value: Probability of at least this dependence in labels of independent characters.
    """

    labels: int
    fraction: float
    p_value: float

    @property
    def language_model(self) -> LanguageModel:
        """The `language_model` of a recognizer of such labels: `none` only if there is evidence for it."""
        if self.labels < MIN_LABELS:
            return "words"
        return "words" if self.p_value <= _MAX_P_VALUE and self.fraction >= _MIN_FRACTION else "none"

    @property
    def reason(self) -> str:
        """Returns the reason for `language_model` in words."""
        if self.labels < MIN_LABELS:
            return f"{self.labels} train labels are too few to test whether characters depend on their neighbors"
        verb = "depend" if self.language_model == "words" else "do not depend"
        percent = 100 * max(self.fraction, 0)
        return (
            f"the characters of the train labels {verb} on their neighbors, which tell {percent:.1f}% of their "
            f"information (p = {self.p_value:.3f}, {self.labels:,} labels)"
        )


def measure_dependence(labels: Sequence[str]) -> LabelDependence:
    """Tests labels in random order; the first 10,000 if there are more. Equal labels count as often as they occur."""
    ids = _encode(labels[:_MAX_LABELS])
    entropy = _entropy_of_successors(ids)
    if len(ids) < MIN_LABELS or not entropy:
        return LabelDependence(len(ids), 0.0, 1.0)
    rng = np.random.default_rng(0)
    observed = _mutual_information(ids)
    chance = np.array([_mutual_information(_permute(ids, rng)) for _ in range(_PERMUTATIONS)])
    rounding = _ROUNDING * entropy
    p_value = (1 + int((chance >= observed - rounding).sum())) / (1 + _PERMUTATIONS)
    attainable = entropy - float(chance.mean())
    if attainable <= rounding:  # every character occurs once
        return LabelDependence(len(ids), 0.0, p_value)
    return LabelDependence(len(ids), float(observed - chance.mean()) / attainable, p_value)


def _encode(labels: Sequence[str]) -> NDArray[np.int64]:
    """Returns character numbers int64 [N, L], padded with `_NONE`."""
    points = np.array(labels, "U").view(np.uint32).reshape(len(labels), -1)
    return np.where(points, np.unique(points, return_inverse=True)[1].reshape(points.shape), _NONE)


def _permute(ids: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Distributes the characters of each position at random over the labels that have this position."""
    permuted = ids.copy()
    for column in permuted.T:
        column[column != _NONE] = rng.permutation(column[column != _NONE])
    return permuted


def _mutual_information(ids: NDArray[np.int64]) -> float:
    """Returns the mutual information of a character and the one before it, summed over all pairs, in nats."""
    return sum(
        _entropy(before) + _entropy(after) - _entropy(before * (1 + ids.max()) + after)
        for before, after in _list_neighbors(ids)
    )


def _entropy_of_successors(ids: NDArray[np.int64]) -> float:
    """Returns the entropy of all characters but the first of each label at their positions, summed, in nats."""
    return sum(_entropy(after) for _, after in _list_neighbors(ids))


def _list_neighbors(ids: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yields, for each position, the characters int64 [n] at it and at the next one, of the labels that have both."""
    for before, after in pairwise(ids.T):
        yield before[after != _NONE], after[after != _NONE]


def _entropy(values: NDArray[np.int64]) -> float:
    """Returns the number of values times the entropy of their distribution, in nats."""
    counts = np.unique(values, return_counts=True)[1]  # not `bincount`: pairs have up to the square of the characters
    return float(len(values) * np.log(len(values)) - (counts * np.log(counts)).sum()) if len(values) else 0.0
