"""An exported graph has the pixels that the store has."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from features.fitting import Fitting
from features.images import decode
from tests.reliability.drawn_images import KINDS, jpegs, pngs
from trainer.graphs.images import read_images

FITTING = Fitting(8, 8)
READ = tf.function(
    lambda data: read_images(data, FITTING), input_signature=[tf.TensorSpec([None], tf.string)], autograph=False
)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@given(st.data())
@settings(max_examples=25, deadline=None)
def test_a_png_of_any_kind_has_the_pixels_of_the_store(kind: tuple[int, int], data: st.DataObject) -> None:
    encoded = data.draw(pngs(st.just(kind))).encoded()
    pixels, problems = READ(tf.constant([encoded]))
    assert problems.numpy().tolist() == [0]
    np.testing.assert_array_equal(pixels.numpy()[0], decode(encoded, FITTING))


@given(jpegs())
@settings(max_examples=60, deadline=None)
def test_a_jpeg_of_any_kind_has_the_pixels_of_the_store(encoded: bytes) -> None:
    pixels, problems = READ(tf.constant([encoded]))
    assert problems.numpy().tolist() == [0]
    np.testing.assert_array_equal(pixels.numpy()[0], decode(encoded, FITTING))
