"""Allocates arrays that TensorFlow uses without a copy, and reuses the memory of large ones.

The operating system zeroes new pages, which takes longer than reading a batch into them.
"""

import math
import sys
from threading import Lock

import numpy as np
from numpy.typing import DTypeLike, NDArray

_ALIGNMENT = 64  # bytes, of every tensor in TensorFlow built for AVX-512
_LARGE = 1 << 20
_MAX_CACHED_BYTES = 256 << 20
_UNUSED_REFCOUNT = 2  # of memory that only `_cached` references, as `sys.getrefcount` counts

_cached: list[NDArray[np.uint8]] = []
_lock = Lock()


def empty_aligned(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[np.generic]:
    """Returns an uninitialized array, like `numpy.empty`, whose memory is aligned to 64 bytes."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    memory = _reuse_memory(size + _ALIGNMENT) if size >= _LARGE else np.empty(size + _ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % _ALIGNMENT
    return memory[first : first + size].view(dtype).reshape(shape)


def _reuse_memory(size: int) -> NDArray[np.uint8]:
    """Returns unused memory of at least `size` bytes. Arrays reference their memory, and tensors their arrays."""
    with _lock:
        for index in range(len(_cached)):
            if size <= len(_cached[index]) <= 2 * size and sys.getrefcount(_cached[index]) == _UNUSED_REFCOUNT:
                _cached.append(_cached.pop(index))
                return _cached[-1]
        memory = np.empty(size, np.uint8)
        _cached.append(memory)
        while sum(map(len, _cached)) > _MAX_CACHED_BYTES:
            del _cached[0]  # the least recently used
        return memory
