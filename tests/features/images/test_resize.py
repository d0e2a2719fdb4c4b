"""Resized pixels are equal to those of Pillow or TensorFlow, cropped or padded."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from features.images.resize import Span, resize
from features.images.resizer import Resizer
from schemas.errors import RecordError

ODD_SIZES = [(480, 640), (37, 53), (299, 299), (5, 331), (1, 1), (200, 3)]
MODES = ("stretch", "crop", "pad")


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1009 + width).integers(0, 256, (height, width, 3), np.uint8)


def kept(whole: np.ndarray, rows: Span, columns: Span) -> np.ndarray:
    """Crops and pads a whole resized image."""
    pixels = np.zeros((rows.target, columns.target, 3), whole.dtype)
    middle = whole[rows.first : rows.first + rows.kept, columns.first : columns.first + columns.kept]
    pixels[rows.target_slice, columns.target_slice] = middle
    return pixels


def by_tensorflow(resizer: Resizer, image: np.ndarray) -> np.ndarray:
    rows, columns = resizer.compute_spans(Image.fromarray(image))
    whole = tf.image.resize(image, (rows.resized, columns.resized))
    return kept(tf.cast(whole, tf.float32).numpy(), rows, columns)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", ODD_SIZES)
@pytest.mark.parametrize("target", [(299, 299), (64, 101), (1, 2)])
def test_tf_is_tf_image_resize_bit_for_bit(mode, size, target):
    image, resizer = noise(*size), Resizer(*target, "tf-bilinear", mode)
    assert np.array_equal(resizer(Image.fromarray(image)), by_tensorflow(resizer, image))


@given(
    size=st.tuples(st.integers(1, 80), st.integers(1, 80)),
    target=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    mode=st.sampled_from(MODES),
    more=st.integers(0, 30),
)
@settings(max_examples=150, deadline=None)
def test_tf_is_tf_image_resize_at_every_size(size, target, mode, more):
    shorter = max(target) + more if mode == "crop" and more else None
    image, resizer = noise(*size), Resizer(*target, "tf-bilinear", mode, shorter)
    assert np.array_equal(resizer(Image.fromarray(image)), by_tensorflow(resizer, image))


def test_pillow_is_antialiased_and_tf_is_not():
    checks = Image.fromarray(np.indices((64, 64)).sum(0).astype(np.uint8) % 2 * 255).convert("RGB")
    assert np.abs(Resizer(8, 8)(checks).astype(int) - 127).max() <= 2
    stripes = Image.fromarray((np.indices((81, 81))[1] % 9 == 4).astype(np.uint8) * 255).convert("RGB")
    assert (Resizer(9, 9, "tf-bilinear")(stripes) == 255).all()
    assert Resizer(9, 9)(stripes).max() < 60


@pytest.mark.parametrize("size", ODD_SIZES)
def test_pillow_stretched_is_a_direct_resize(size):
    image = Image.fromarray(noise(*size))
    target = np.asarray(image.resize((101, 64), Image.Resampling.BILINEAR))
    assert np.array_equal(Resizer(64, 101)(image), target)


@pytest.mark.parametrize("size", ODD_SIZES)
def test_pillow_padded_is_a_direct_resize_on_black(size):
    image, resizer = Image.fromarray(noise(*size)), Resizer(64, 101, mode="pad")
    rows, columns = resizer.compute_spans(image)
    whole = np.asarray(image.resize((columns.resized, rows.resized), Image.Resampling.BILINEAR))
    assert np.array_equal(resizer(image), kept(whole, rows, columns))


@pytest.mark.parametrize("size", [(480, 640), (337, 253), (64, 331)])
def test_pillow_cropped_is_the_middle_of_a_direct_resize_within_rounding(size):
    smooth = Image.fromarray(noise(9, 9)).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    resizer = Resizer(64, 101, mode="crop", shortest_edge=117)
    rows, columns = resizer.compute_spans(smooth)
    whole = np.asarray(smooth.resize((columns.resized, rows.resized), Image.Resampling.BILINEAR))
    assert np.abs(resizer(smooth).astype(int) - kept(whole, rows, columns)).max() <= 1


def test_a_strip_with_an_excessive_intermediate_result_is_rejected():
    strip = Image.new("RGB", (1, 1_000_000))
    with pytest.raises(RecordError, match="too large: a strip of 1×1000000") as caught:
        resize(strip, Span(1_000_000, 299, 299), Span(1, 299, 299), "pillow-bilinear")
    assert caught.value.permanent
    assert resize(strip, Span(1_000_000, 299, 299), Span(1, 299, 299), "tf-bilinear").shape == (299, 299, 3)


def test_decoding_does_not_import_tensorflow():
    code = """
import sys
from PIL import Image
from features.images.resizer import Resizer
import features.images.decode
Resizer(8, 8, "tf-bilinear")(Image.new("RGB", (9, 9)))
print("tensorflow" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
