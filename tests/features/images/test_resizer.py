"""Images are resized, cropped and padded to the input size as the table config describes."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from features.images.resize import Span
from features.images.resizer import Resizer, make_resizer
from schemas.errors import UsageError

METHODS = ("pillow-bilinear", "draft-bilinear", "tf-bilinear")
MODES = ("stretch", "crop", "pad")
sides = st.integers(1, 90)


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
