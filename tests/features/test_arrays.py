"""Aligned arrays become tensors without a copy."""

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from features.arrays import aligned_empty


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.float16, ml_dtypes.bfloat16, np.float32])
@pytest.mark.parametrize("shape", [(0, 3), (1,), (7, 5, 3), (64, 64, 2048)])
def test_an_aligned_array_is_as_asked_for(shape, dtype):
    array = aligned_empty(shape, dtype)
    assert (array.shape, array.dtype) == (shape, np.dtype(dtype))
    assert array.size == 0 or array.ctypes.data % 64 == 0
    assert array.flags.c_contiguous
    assert array.flags.writeable


def test_a_tensor_that_a_numpy_function_gives_has_the_array_s_own_memory():
    places = []

    def make():
        array = aligned_empty((33, 7), np.float16)
        places.append(array.ctypes.data)
        return array

    (tensor,) = tf.data.Dataset.range(1).map(lambda _: tf.numpy_function(make, [], tf.float16))
    assert np.asarray(tensor).ctypes.data == places[0]
