"""Fits the temperature that calibrates the confidence of labels (temperature scaling, Guo et al., ICML 2017).

Logits are divided by the temperature before the softmax. Above 1 it lowers the confidence, below 1 it raises it. The
most probable class of a time step or position stays the same, so greedy labels do not change.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

LOWEST, HIGHEST = 0.1, 10.0

_COARSE = 9
_REFINEMENTS = 12
_GOLDEN = (np.sqrt(5) - 1) / 2
_NEARLY_ONE = -1e-12  # log-probability; that of 1 has no finite loss for a wrong label


def fit_temperature(score: Callable[[float], NDArray[np.float32]], correct: NDArray[np.bool_]) -> float:
    """Fits the temperature on held-out labels; minimizes the cross-entropy of whether each predicted label is right.

    The event is "the predicted label is right", not "the label is w". The negative log-likelihood of the true label,
    which Guo et al. minimize for one softmax, is here a sum over time steps, and with CTC over alignments, whose errors
    are not independent. Its minimum is determined by the few wrong images, whose true label has a probability of
    10⁻⁵ or less, and not by the probability of the predicted label, which is what a user compares with a threshold.
    For an attention head of one position, both have the same minimum if only two classes are probable.

    The targets are Platt's (1999): (N₊ + 1) / (N₊ + 2) for the N₊ right labels, and 1 / (N₋ + 2) for the N₋ wrong
    ones. Without them, the temperature of a recognizer without an error on these images would be 0.

    Args:
        score: Maps a temperature to the log-probabilities of the predicted labels, float [N].
        correct: Whether each label is right, bool [N].

    Returns:
        The temperature, from 0.1 to 10, to about 0.2%.
    """
    right = int(correct.sum())
    targets = np.where(correct, (right + 1) / (right + 2), 1 / (len(correct) - right + 2))

    def compute_loss(log_temperature: float) -> float:
        scores = np.minimum(score(float(np.exp(log_temperature))).astype(np.float64), _NEARLY_ONE)
        return float(-np.mean(targets * scores + (1 - targets) * np.log(-np.expm1(scores))))

    grid = np.linspace(np.log(LOWEST), np.log(HIGHEST), _COARSE)
    best = int(np.argmin([compute_loss(one) for one in grid]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, _COARSE - 1)]
    return float(np.exp(_minimize(compute_loss, low, high)))


def _minimize(compute: Callable[[float], float], low: float, high: float) -> float:
    """Returns the minimum of a function with a single one between `low` and `high`, by golden-section search."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    left_value, right_value = compute(left), compute(right)
    for _ in range(_REFINEMENTS):
        if left_value <= right_value:
            high, right, right_value = right, left, left_value
            left = high - _GOLDEN * (high - low)
            left_value = compute(left)
        else:
            low, left, left_value = left, right, right_value
            right = low + _GOLDEN * (high - low)
            right_value = compute(right)
    return (low + high) / 2
