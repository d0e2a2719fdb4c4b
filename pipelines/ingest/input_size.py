"""Chooses the size at which images of text are stored, from a sample of the images and from the labels.

    sample → sizes, stroke widths ┐
    labels → lengths              ┴→ statistics → height and width, multiples of eight pixels

The images keep about their own size, up to the number of pixels that the training profiles are made for. Thin strokes
and narrow characters need more.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from features.images.decode import ImageLimits, open_image
from features.images.strokes import measure_stroke_width
from features.inputs import FileReference
from features.text.time_steps import count_required_steps
from pipelines.ingest.image_database import ImageDatabase
from schemas.defaults import PUBLISHED_CAPTCHA_SIZE
from schemas.errors import RecordError

SAMPLE_IMAGES = 128
_THREADS = 4

_STEP = 8  # pixels; the width of a column of the recognizer
_HEIGHTS = range(32, 129, _STEP)
_PIXELS = math.prod(PUBLISHED_CAPTCHA_SIZE)
MAX_PIXELS = 2 * _PIXELS  # of images with thin strokes or narrow characters
_MIN_STROKE_WIDTH = 2.0
_CHARACTER_WIDTH = 16
_TIME_STEP_WIDTH = 4  # of CTC; a column of the recognizer has two time steps
_QUANTILE = 0.95  # of aspect ratios and label lengths


class _MeasuredImage(NamedTuple):
    height: int
    width: int
    stroke_width: float | None


class LongestLabel(NamedTuple):
    """The label that needs most CTC time steps, and the ID of its image."""

    image_id: str
    label: str

    @property
    def time_steps(self) -> int:
        return count_required_steps(self.label)

    @property
    def required_width(self) -> int:
        """Width of images with enough time steps for one row of text, in pixels."""
        return _round_up(_TIME_STEP_WIDTH * self.time_steps)


@dataclass(frozen=True)
class TextStatistics:
    """Measures of a set of images of text, in pixels.

    Args:
        images: Number of measured images.
        height: Median height.
        width: Median width.
        aspect_ratio: Width divided by height; 95% of the images do not exceed it.
        stroke_width: Median stroke width; None if no image shows text.
        label_length: Number of characters; 95% of the labels do not exceed it. 0 without labels.
        longest_label: Label that needs most CTC time steps; None without labels.
    """

    images: int
    height: int
    width: int
    aspect_ratio: float
    stroke_width: float | None
    label_length: int
    longest_label: LongestLabel | None

    def __str__(self) -> str:
        strokes = f", strokes of {self.stroke_width:.1f}" if self.stroke_width else ""
        labels = f"; labels of up to {self.label_length} characters" if self.label_length else ""
        if self.longest_label:
            labels += f", {self.longest_label.time_steps} time steps for the longest"
        return (
            f"the median of {self.images} images is {self.height}×{self.width} pixels, the aspect ratio up to "
            f"{self.aspect_ratio:.2f}{strokes}{labels}"
        )

    def choose_height(self) -> int:
        """Returns the height of the stored images.

        It is the largest one with at most `_PIXELS` pixels that does not enlarge the images, and then is increased
        while strokes or characters are too thin. Strokes alone do not enlarge an image.
        """
        own = min(max(_round(self.height), _HEIGHTS[0]), _HEIGHTS[-1])
        small = [height for height in _HEIGHTS if height <= own and self._count_pixels(height) <= _PIXELS]
        height = max(small, default=_HEIGHTS[0])
        while (
            height < _HEIGHTS[-1]
            and self._count_pixels(height + _STEP) <= MAX_PIXELS
            and (self._has_narrow_characters(height) or (height < own and self._has_thin_strokes(height)))
        ):
            height += _STEP
        return height

    def choose_size(self) -> tuple[int, int]:
        """Returns the height and width that fit the images, with at most `MAX_PIXELS` pixels.

        The width may be less than that of the longest label.
        """
        height = self.choose_height()
        return height, min(self.fit_width(height), MAX_PIXELS // height // _STEP * _STEP)

    def fit_width(self, height: int) -> int:
        """Returns the smallest width at which 95% of the images are not lower than `height`."""
        return _round_up(height * self.aspect_ratio)

    def fit_height(self, width: int) -> int:
        """Returns the largest height at which 95% of the images are not wider than `width`."""
        return max((height for height in _HEIGHTS if height * self.aspect_ratio <= width), default=_HEIGHTS[0])

    def _count_pixels(self, height: int) -> int:
        return height * self.fit_width(height)

    def _has_thin_strokes(self, height: int) -> bool:
        return self.stroke_width is not None and self.stroke_width * height / self.height < _MIN_STROKE_WIDTH

    def _has_narrow_characters(self, height: int) -> bool:
        return height * self.aspect_ratio < _CHARACTER_WIDTH * self.label_length


def measure_text(database: ImageDatabase, limits: ImageLimits) -> TextStatistics | None:
    """Measures the listed images of smallest rank, and all labels; None if no image of the sample can be read."""
    with ThreadPoolExecutor(_THREADS) as pool:
        rows = database.list_located(SAMPLE_IMAGES)
        measured = [one for one in pool.map(lambda row: _measure(row, limits), rows) if one]
    if not measured:
        return None
    heights, widths, strokes = zip(*measured, strict=True)
    lengths = [length for length, count in database.count_label_lengths().items() for _ in range(count)]
    return TextStatistics(
        images=len(measured),
        height=int(np.median(heights)),
        width=int(np.median(widths)),
        aspect_ratio=_find_quantile([width / height for height, width, _ in measured]),
        stroke_width=float(np.median(found)) if (found := [width for width in strokes if width]) else None,
        label_length=int(_find_quantile(lengths)) if lengths else 0,
        longest_label=LongestLabel(*longest) if (longest := database.find_longest_label()) else None,
    )


def _measure(row: dict[str, Any], limits: ImageLimits) -> _MeasuredImage | None:
    """Returns the measures of an image; None if it cannot be read, which the extraction reports."""
    with suppress(RecordError):
        data = FileReference(row["location"], row["member"]).read(limits.bytes)
        image = open_image(data, max_pixels=limits.pixels)
        return _MeasuredImage(image.height, image.width, measure_stroke_width(image))
    return None


def _find_quantile(values: list[float] | list[int]) -> float:
    """Returns the smallest value that at least 95% of the values do not exceed."""
    return float(np.quantile(values, _QUANTILE, method="inverted_cdf"))


def _round(pixels: float) -> int:
    """Rounds to the nearest multiple of `_STEP`, halves up."""
    return math.floor(pixels / _STEP + 0.5) * _STEP


def _round_up(pixels: float) -> int:
    return math.ceil(round(pixels, 3) / _STEP) * _STEP
