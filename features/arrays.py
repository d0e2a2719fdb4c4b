"""Arrays that TensorFlow takes as they are: their memory lies where it wants it, so a tensor of them is no copy."""

import math

import numpy as np
from numpy.typing import DTypeLike, NDArray

# Of every tensor's first byte, in TensorFlow built for AVX-512.
_ALIGNED = 64


def aligned_empty(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[np.generic]:
    """An array of any content, as `numpy.empty` gives it, whose memory begins at a multiple of 64 bytes."""
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    memory = np.empty(size + _ALIGNED, np.uint8)
    first = -memory.ctypes.data % _ALIGNED
    return memory[first : first + size].view(kind).reshape(shape)
