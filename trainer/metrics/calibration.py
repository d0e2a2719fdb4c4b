"""Measures confidence: whether it is calibrated, and how exact match depends on the confidence that is required.

A confidence is calibrated if, of all labels with confidence p, the fraction p is correct.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import ROUND_DOWN, Decimal
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_BINS = 15
# Values of exact match for which a result states the coverage.
_EXACT_MATCHES = (0.95, 0.98, 0.99, 0.995, 0.999)
_MAX_POINTS = 200


def expected_calibration_error(confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> float:
    """Computes the expected calibration error (ECE) of Guo et al. (ICML 2017, arXiv:1706.04599), from 0 to 1.

    It is the mean over all predictions of |accuracy − mean confidence| of their bin; 15 bins of equal width.

    Args:
        confidence: Probabilities of at least one prediction, float [N].
        correct: Whether each prediction is correct, bool [N].
    """
    # The last bin includes 1.
    bins = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
    gaps = np.bincount(bins, weights=correct.astype(np.float64) - confidence, minlength=NUM_BINS)
    return float(np.abs(gaps).sum() / len(confidence))


@dataclass(frozen=True)
class CoveragePoint:
    """What remains of N predictions if those below a confidence are left open: their fraction and their exact match."""

    min_confidence: float
    coverage: float
    exact_match: float


class CoverageCurve:
    """Exact match by coverage (the risk–coverage curve of Geifman and El-Yaniv, NeurIPS 2017, with 1 − risk).

    Args:
        confidence: Probabilities of at least one prediction, float [N].
        correct: Whether each prediction is correct, bool [N].
    """

    def __init__(self, confidence: NDArray[np.float64], correct: NDArray[np.bool_]) -> None:
        order = np.argsort(-confidence, kind="stable")
        ranked, right = confidence[order], np.cumsum(correct[order])
        # No threshold separates equal confidences.
        ends = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
        self.points: Sequence[CoveragePoint] = [
            CoveragePoint(float(ranked[end]), (end + 1) / len(ranked), float(right[end] / (end + 1)))
            for end in ends.tolist()
        ]

    def find(self, exact_match: float) -> CoveragePoint | None:
        """Returns the point of the highest coverage with at least this exact match; None without one.

        Its `min_confidence` has as few digits as leave the same predictions open.
        """
        thresholds = [*(point.min_confidence for point in self.points[1:]), 0.0]
        found = (
            (point, lower)
            for point, lower in zip(self.points, thresholds, strict=True)
            if point.exact_match >= exact_match
        )
        point, lower = max(found, key=lambda pair: pair[0].coverage, default=(None, 0.0))
        return point and replace(point, min_confidence=_shorten(point.min_confidence, lower))

    def to_dict(self) -> dict[str, Any]:
        """Returns the values for JSON.

        `coverage_by_exact_match` has one point per exact match, null where no threshold reaches it; `coverage_curve`
        has at most 200 points, from the lowest to the highest coverage.
        """
        found = {value: self.find(value) for value in _EXACT_MATCHES}
        return {
            "coverage_by_exact_match": {f"{name:g}": point and asdict(point) for name, point in found.items()},
            "coverage_curve": list(map(asdict, self._sample())),
        }

    def _sample(self) -> Iterator[CoveragePoint]:
        last = len(self.points) - 1
        for number in np.unique(np.linspace(0, last, min(_MAX_POINTS, last + 1)).round().astype(int)).tolist():
            yield self.points[number]


def _shorten(confidence: float, lower: float) -> float:
    """Rounds a confidence down to the fewest decimals with which it is above the middle between it and a lower one.

    So it separates the two also where they are computed with small differences.
    """
    exact = Decimal(repr(confidence))
    rounded = (exact.quantize(Decimal(1).scaleb(-digits), ROUND_DOWN) for digits in count(1))
    return next(value for one in rounded if (value := float(one)) == confidence or value > (confidence + lower) / 2)
