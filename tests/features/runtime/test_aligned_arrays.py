"""Aligned arrays become tensors without a copy, and unreferenced memory is reused."""

import time
from concurrent.futures import ThreadPoolExecutor

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from features.runtime import aligned_arrays
from features.runtime.aligned_arrays import empty_aligned


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.float16, ml_dtypes.bfloat16, np.float32])
@pytest.mark.parametrize("shape", [(0, 3), (1,), (7, 5, 3), (64, 64, 2048)])
def test_an_array_has_the_shape_and_dtype_and_is_aligned(shape, dtype):
    array = empty_aligned(shape, dtype)
    assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
    assert array.size == 0 or array.ctypes.data % 64 == 0
    assert array.flags.c_contiguous
    assert array.flags.writeable


def test_a_tensor_shares_the_memory_of_its_array():
    places = []

    def make():
        array = empty_aligned((33, 7), np.float16)
        places.append(array.ctypes.data)
        return array

    (tensor,) = tf.data.Dataset.range(1).map(lambda _: tf.numpy_function(make, [], tf.float16))
    assert np.asarray(tensor).ctypes.data == places[0]


LARGE = (1 << 20,)


def place_of(array):
    return np.asarray(array).ctypes.data


def test_unreferenced_memory_is_reused():
    array = empty_aligned(LARGE, np.float32)
    part = array[5:7]
    place = place_of(array)
    del array
    assert place_of(empty_aligned(LARGE, np.float32)) != place  # a part of it is held
    del part
    assert place_of(empty_aligned(LARGE, np.float32)) == place


def test_memory_of_a_live_tensor_is_not_reused():
    (tensor,) = tf.data.Dataset.range(1).map(lambda _: tf.numpy_function(lambda: filled(3), [], tf.float32))
    others = [filled(value) for value in range(4)]
    assert np.all(np.asarray(tensor) == 3)
    assert place_of(tensor) not in map(place_of, others)


def test_threads_do_not_share_memory():
    def hold(value):
        array = filled(value)
        time.sleep(0.001)
        return bool(np.all(array == value))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(hold, range(200)))


def test_the_cached_memory_is_limited():
    for _ in range(2):
        held = [empty_aligned((48 << 20,), np.uint8) for _ in range(9)]
        del held
        assert len(aligned_arrays._cached) == 5
        assert sum(map(len, aligned_arrays._cached)) <= 256 << 20
    empty_aligned((300 << 20,), np.uint8)
    assert not aligned_arrays._cached


def filled(value):
    array = empty_aligned(LARGE, np.float32)
    array.fill(value)
    return array
