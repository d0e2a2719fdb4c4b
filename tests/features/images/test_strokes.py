"""The stroke width of text is measured without knowing its colors."""

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from features.images.strokes import measure_stroke_width


def bars(width: int, ink: int, background: int, height: int = 60, scale: int = 1) -> Image.Image:
    """Returns an image with three upright bars, and a thin horizontal line with less ink."""
    pixels = np.full((height, 120, 3), background, np.uint8)
    for left in (20, 50, 80):
        pixels[10:-10, left : left + width] = ink
    pixels[5, 10:60] = ink
    return Image.fromarray(pixels.repeat(scale, 0).repeat(scale, 1))


@pytest.mark.parametrize(("ink", "background"), [(0, 255), (255, 0), (90, 200)])
@pytest.mark.parametrize("width", [3, 6, 11])
def test_the_width_is_that_of_most_ink(width, ink, background):
    assert measure_stroke_width(bars(width, ink, background)) == width


def test_a_high_image_is_measured_at_a_lower_resolution():
    assert measure_stroke_width(bars(6, 0, 255, scale=20)) == pytest.approx(120, rel=0.1)


def test_a_wide_image_is_measured_at_a_lower_resolution():
    image = Image.new("RGB", (65_535, 512), "white")
    for left in range(200, 65_000, 150):
        image.paste((0, 0, 0), (left, 60, left + 48, 450))
    tracemalloc.start()
    measured = measure_stroke_width(image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert measured == pytest.approx(48, rel=0.15)
    assert peak < 100e6


def test_weak_noise_is_no_ink():
    noise = np.random.default_rng(3).integers(240, 256, (40, 90, 3)).astype(np.uint8)
    assert measure_stroke_width(Image.fromarray(noise)) is None
    assert measure_stroke_width(Image.new("RGB", (1, 1))) is None
