"""Distorts characters and images: thicker and thinner lines, shear, and waves."""

import math

import numpy as np
from PIL import Image, ImageChops, ImageFilter

_PERIOD = (0.5, 1.5)  # of a wave, in heights of the image


def change_weight(mask: Image.Image, change: int) -> Image.Image:
    """Makes the lines of a mask, mode L, thicker by `2 * change` pixels, or thinner if negative.

    A line that would vanish keeps its middle, so that a character stays whole. The mask needs a margin of `change`.
    """
    if change >= 0:
        return mask.filter(ImageFilter.MaxFilter(2 * change + 1)) if change else mask
    middles = Image.new("L", mask.size)
    for _ in range(-change):
        eroded = mask.filter(ImageFilter.MinFilter(3))
        lost = ImageChops.subtract(mask, eroded.filter(ImageFilter.MaxFilter(3)))
        middles, mask = ImageChops.lighter(middles, lost), eroded
    return ImageChops.lighter(mask, middles)


def shear_mask(mask: Image.Image, degrees: float) -> Image.Image:
    """Slants a mask to the right, or to the left if negative; the result is wider."""
    slope = math.tan(math.radians(degrees))
    extra = math.ceil(abs(slope) * mask.height)
    offset = slope * mask.height if slope > 0 else 0.0
    size = (mask.width + extra, mask.height)
    return mask.transform(size, Image.Transform.AFFINE, (1, slope, -offset, 0, 1, 0), Image.Resampling.BICUBIC)


def warp_image(image: Image.Image, max_warp: float, random: np.random.Generator) -> Image.Image:
    """Moves the pixels of an RGB image along a wave in each direction, by at most `max_warp` pixels."""
    height, width = image.height, image.width
    (across, down), (phase_x, phase_y) = random.uniform(0, max_warp, 2), random.uniform(0, 2 * math.pi, 2)
    period_x, period_y = random.uniform(*_PERIOD, 2) * height
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float64)
    x = np.clip(columns + across * np.sin(2 * math.pi * rows / period_x + phase_x), 0, width - 1)
    y = np.clip(rows + down * np.sin(2 * math.pi * columns / period_y + phase_y), 0, height - 1)
    left, top = np.minimum(x.astype(int), width - 2), np.minimum(y.astype(int), height - 2)
    to_right, to_bottom = (x - left)[..., None], (y - top)[..., None]
    pixels = np.asarray(image, np.float64)
    upper = pixels[top, left] * (1 - to_right) + pixels[top, left + 1] * to_right
    lower = pixels[top + 1, left] * (1 - to_right) + pixels[top + 1, left + 1] * to_right
    return Image.fromarray(np.rint(upper * (1 - to_bottom) + lower * to_bottom).astype(np.uint8))
