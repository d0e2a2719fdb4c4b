"""Arrays that TensorFlow takes as they are: their memory lies where it wants it, so a tensor of them is no copy.

The memory of large ones is used again once nobody holds it. The system zeroes fresh pages, which takes longer than
reading a batch into them.
"""

import math
import sys
from threading import Lock

import numpy as np
from numpy.typing import DTypeLike, NDArray

# Of every tensor's first byte, in TensorFlow built for AVX-512.
_ALIGNED = 64
_LARGE = 1 << 20
# How many bytes stay with the process: some batches in the making, read ahead and in use.
_KEPT = 256 << 20
_FREE = 2  # references to memory that only `_kept` holds, as they are counted

_kept: list[NDArray[np.uint8]] = []
_keeping = Lock()


def empty_aligned(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[np.generic]:
    """An array of any content, as `numpy.empty` gives it, whose memory begins at a multiple of 64 bytes."""
    kind = np.dtype(dtype)
    size = math.prod(shape) * kind.itemsize
    memory = _recycled(size + _ALIGNED) if size >= _LARGE else np.empty(size + _ALIGNED, np.uint8)
    first = -memory.ctypes.data % _ALIGNED
    return memory[first : first + size].view(kind).reshape(shape)


def _recycled(size: int) -> NDArray[np.uint8]:
    """Memory of so many bytes or more that nobody holds. Every array in it does, and a tensor holds its array."""
    with _keeping:
        for place in range(len(_kept)):
            if size <= len(_kept[place]) <= 2 * size and sys.getrefcount(_kept[place]) == _FREE:
                _kept.append(_kept.pop(place))
                return _kept[-1]
        memory = np.empty(size, np.uint8)
        _kept.append(memory)
        while sum(map(len, _kept)) > _KEPT:
            del _kept[0]  # what has not been asked for for longest
        return memory
