"""Measures how wide the strokes of the text in an image are."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.images.resize import measure_border_color

# Larger images are reduced first by a whole factor, which bounds time and memory.
_MAX_HEIGHT = 512
_MAX_PIXELS = 1 << 20
# A contrast of at most this, of 255, is noise of an image without text.
_MAX_NOISE = 16
# Thin lines and speckles have much less ink than characters, so most ink of this quantile belongs to characters.
_QUANTILE = 0.75


def measure_stroke_width(image: Image.Image) -> float | None:
    """Returns the width in pixels of the strokes in an RGB image of text; None for an image without text.

    Ink is what differs from the color of the border by more than Otsu's threshold (1979). The width at a pixel of ink
    is the length of the horizontal or vertical run of ink through it, whichever is shorter. The result is the upper
    quartile.
    """
    factor = math.ceil(max(image.height / _MAX_HEIGHT, math.sqrt(image.height * image.width / _MAX_PIXELS)))
    ink = _find_ink(image.reduce(factor) if factor > 1 else image)
    if not ink.any():
        return None
    widths = np.minimum(_measure_runs(ink), _measure_runs(ink.T).T)[ink]
    return float(np.quantile(widths, _QUANTILE)) * factor


def _find_ink(image: Image.Image) -> NDArray[np.bool_]:
    """Returns which pixels of an image are ink, bool [height, width]."""
    background = np.array(measure_border_color(image), np.int16)
    contrast = np.abs(np.asarray(image) - background).max(axis=-1)
    return np.asarray(contrast > max(_find_threshold(contrast), _MAX_NOISE))


def _find_threshold(values: NDArray[np.int16]) -> int:
    """Returns the value in 0…255 that separates two classes with the largest variance between them."""
    counts = np.bincount(values.ravel(), minlength=256).astype(np.float64)
    below, sums = np.cumsum(counts), np.cumsum(counts * np.arange(256))
    above = below[-1] - below
    difference = sums / np.maximum(below, 1) - (sums[-1] - sums) / np.maximum(above, 1)
    return int(np.argmax(below * above * difference**2))


def _measure_runs(ink: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Returns for each pixel of ink the length of the horizontal run that it belongs to; 0 elsewhere."""
    edges = np.diff(np.pad(ink, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    runs = np.nonzero(edges == -1)[1] - np.nonzero(edges == 1)[1]  # in the order of the pixels, row by row
    lengths = np.zeros(ink.shape, np.int64)
    lengths[ink] = np.repeat(runs, runs)
    return lengths
