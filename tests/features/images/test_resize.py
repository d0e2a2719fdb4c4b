"""Images are resized, cropped and padded as the table config describes, equal to Pillow or TensorFlow."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from features.images.resize import Resizer, Span, make_resizer, measure_border_color, resize
from schemas.errors import RecordError, UsageError

ODD_SIZES = [(480, 640), (37, 53), (299, 299), (5, 331), (1, 1), (200, 3)]
METHODS = ("pillow-bilinear", "draft-bilinear", "tf-bilinear")
MODES = ("stretch", "crop", "pad", "pad-border")
sides = st.integers(1, 90)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1009 + width).integers(0, 256, (height, width, 3), np.uint8)


def kept(whole: np.ndarray, rows: Span, columns: Span, padding: tuple[int, int, int] = (0, 0, 0)) -> np.ndarray:
    """Crops and pads a whole resized image."""
    pixels = np.full((rows.target, columns.target, 3), padding, whole.dtype)
    middle = whole[rows.first : rows.first + rows.kept, columns.first : columns.first + columns.kept]
    pixels[rows.target_slice, columns.target_slice] = middle
    return pixels


def by_tensorflow(resizer: Resizer, image: np.ndarray) -> np.ndarray:
    rows, columns = resizer.compute_spans(Image.fromarray(image))
    whole = tf.image.resize(image, (rows.resized, columns.resized))
    padding = measure_border_color(Image.fromarray(image)) if resizer.mode == "pad-border" else (0, 0, 0)
    return kept(tf.cast(whole, tf.float32).numpy(), rows, columns, padding)


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
from features.images.resize import Resizer
import features.images.decode
Resizer(8, 8, "tf-bilinear")(Image.new("RGB", (9, 9)))
print("tensorflow" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def ramp(width: int, height: int) -> Image.Image:
    """Returns an image whose red is the column and green the row, in 0…240, and blue 255."""
    x, y = np.meshgrid(np.linspace(0, 240, width), np.linspace(0, 240, height))
    return Image.fromarray(np.rint(np.stack([x, y, np.full_like(x, 255)], axis=-1)).astype(np.uint8))


def spans(resizer: Resizer, width: int, height: int) -> tuple[Span, Span]:
    return resizer.compute_spans(Image.new("RGB", (width, height)))


@pytest.mark.parametrize("method", METHODS)
def test_stretch_ignores_the_aspect_ratio(method):
    pixels = Resizer(20, 30, method)(ramp(90, 40))
    assert pixels.shape == (20, 30, 3)
    assert pixels[0, 0, :2].max() < 12
    assert pixels[-1, -1, :2].min() > 228


@pytest.mark.parametrize("method", METHODS)
def test_crop_keeps_the_center_of_wide_and_tall_images(method):
    wide = Resizer(20, 20, method, "crop")(ramp(80, 40)).astype(int)
    assert abs(wide[:, :, 0].min() - 60) < 5
    assert abs(wide[:, :, 0].max() - 180) < 5
    assert wide[0, 0, 1] < 12
    tall = Resizer(20, 20, method, "crop")(ramp(40, 80)).astype(int)
    assert abs(tall[:, :, 1].min() - 60) < 5
    assert abs(tall[:, :, 1].max() - 180) < 5
    assert tall[0, 0, 0] < 12


@pytest.mark.parametrize("method", METHODS)
def test_a_longer_shortest_edge_crops_more(method):
    close = Resizer(20, 20, method, "crop", 40)(ramp(40, 40)).astype(int)
    assert abs(close[:, :, 0].min() - 60) < 6
    assert abs(close[:, :, 1].max() - 180) < 6


@pytest.mark.parametrize("method", METHODS)
def test_pad_centers_the_whole_image_on_black(method):
    pixels = Resizer(20, 20, method, "pad")(ramp(80, 40))
    assert not pixels[:5].any()
    assert not pixels[15:].any()
    assert (pixels[5:15, :, 2] > 254).all()
    assert pixels[5, 0, :2].max() < 14
    assert pixels[14, -1, :2].min() > 226


@pytest.mark.parametrize("method", METHODS)
def test_pad_border_centers_the_whole_image_on_the_color_of_its_border(method):
    pixels = np.full((40, 80, 3), (200, 90, 31), np.uint8)
    pixels[10:30, 10:70] = 0
    pixels[:2] = pixels[-2:] = pixels[:, :2] = pixels[:, -2:] = 255  # a frame
    resized = Resizer(20, 20, method, "pad-border")(Image.fromarray(pixels))
    assert (resized[:5] == (200, 90, 31)).all()
    assert (resized[15:] == (200, 90, 31)).all()
    assert np.array_equal(resized[5:15], Resizer(20, 20, method, "pad")(Image.fromarray(pixels))[5:15])


def test_halves_are_rounded_up_and_the_end_has_the_odd_pixel():
    assert spans(Resizer(10, 10, mode="pad"), 4, 3) == (Span(3, 8, 10), Span(4, 10, 10))
    assert Span(3, 8, 10).target_slice == slice(1, 9)
    assert Span(3, 7, 10).target_slice == slice(1, 8)
    rows, columns = spans(Resizer(10, 10, mode="crop"), 3, 4)
    assert (rows, columns) == (Span(4, 13, 10), Span(3, 10, 10))
    assert (rows.first, rows.kept, rows.target_slice) == (1, 10, slice(0, 10))


def test_the_scale_follows_the_limiting_side():
    assert spans(Resizer(10, 30, mode="crop"), 20, 10) == (Span(10, 15, 10), Span(20, 30, 30))
    assert spans(Resizer(10, 30, mode="pad"), 20, 10) == (Span(10, 10, 10), Span(20, 20, 30))


@given(width=sides, height=sides, rows=sides, columns=sides, more=st.integers(0, 40), has_side=st.booleans())
@settings(max_examples=200, deadline=None)
def test_crop_covers_the_size_and_pad_fits_into_it(width, height, rows, columns, more, has_side):
    shorter = max(rows, columns) + more if has_side else None
    crop = spans(Resizer(rows, columns, mode="crop", shortest_edge=shorter), width, height)
    pad = spans(Resizer(rows, columns, mode="pad"), width, height)
    assert all(span.kept == span.target for span in crop)
    assert all(span.kept == span.resized for span in pad)
    if shorter:
        assert min(span.resized for span in crop) == shorter
    else:
        assert any(span.resized == span.target for span in crop)
    assert any(span.resized == span.target for span in pad)
    for one, other in (crop, pad):
        rounding = 0.5 if min(one.resized, other.resized) > 1 else 1
        by_rows = other.source * one.resized / one.source - other.resized
        by_columns = one.source * other.resized / other.source - one.resized
        assert min(abs(by_rows), abs(by_columns)) <= rounding


@given(
    width=sides,
    height=sides,
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    method=st.sampled_from(METHODS),
    mode=st.sampled_from(MODES),
)
@settings(max_examples=200, deadline=None)
def test_each_image_is_resized_to_the_size_and_dtype(width, height, rows, columns, method, mode):
    resizer = Resizer(rows, columns, method, mode)
    pixels = resizer(Image.new("RGB", (width, height), (7, 130, 255)))
    assert pixels.shape == (rows, columns, 3)
    assert pixels.dtype == resizer.dtype == ("float32" if method == "tf-bilinear" else "uint8")
    shown = pixels[pixels.any(-1)]
    assert np.array_equal(np.unique(shown, axis=0), [[7, 130, 255]])
    assert mode == "pad" or len(shown) == rows * columns


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (1, 30_000), (3, 65_535)])
def test_strips_are_resized_in_constant_memory(method, mode, size):
    pixels = Resizer(224, 224, method, mode, 256 if mode == "crop" else None)(Image.new("RGB", size, "white"))
    assert pixels.max() == 255
    assert mode == "pad" or pixels.min() == 255


@pytest.mark.parametrize("method", METHODS)
def test_the_result_is_writable(method):
    pixels = Resizer(32, 48, method)(ramp(48, 32))
    pixels[:] = 0
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize("mode", MODES)
@given(width=sides, height=sides)
@settings(max_examples=60, deadline=None)
def test_the_visible_part_is_the_part_that_the_pixels_show(mode, width, height):
    assume(max(width, height) < 2 * min(width, height) and min(width, height) > 24)
    resizer, image = Resizer(24, 24, mode=mode), ramp(width, height)
    view = resizer.crop_visible(image)
    seen = resizer(image).astype(int)
    assert np.abs(np.asarray(view.resize((24, 24), Image.Resampling.BILINEAR)).astype(int) - seen).mean() < 14
    pixel = max(width, height) / 24  # of the network's, in the image's: rounding to whole ones distorts a little
    assert view.size == image.size if mode == "stretch" else abs(view.width - view.height) <= pixel + 2


def test_the_shortest_edge_applies_to_crops_that_it_covers():
    with pytest.raises(UsageError, match=r"--shortest-edge: .* --resize-mode pad"):
        Resizer(10, 10, mode="pad", shortest_edge=20)
    with pytest.raises(UsageError, match=r"--shortest-edge: 19 does not cover a crop of 10×20.*at least 20"):
        Resizer(10, 20, mode="crop", shortest_edge=19)


def test_an_excessive_size_is_rejected():
    with pytest.raises(UsageError, match="--height, --width: 1000000×20 is more than 16,777,216 pixels"):
        make_resizer(1_000_000, 20, "pillow", "stretch", None)


def test_options_with_the_same_effect_give_equal_resizers():
    assert make_resizer(10, 10, "tf", "crop", 10) == make_resizer(10, 10, "tf", "crop", None)
    assert make_resizer(10, 20, "tf", "crop", 20) != make_resizer(10, 20, "tf", "crop", None)
    assert make_resizer(10, 10, "pillow", "stretch", None) == Resizer(10, 10)
