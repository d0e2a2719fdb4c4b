"""Selects square regions of spatial locations, and blanks them in an image."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.images.resize import Resizer, Span
from schemas.errors import CaptError

Region = tuple[int, int]
"""The first row and column of the locations of a region in the grid."""


@dataclass(frozen=True)
class Grid:
    """The square grid of spatial locations. A region is a square of a third of its side, rounded, at least 1."""

    side: int

    @classmethod
    def from_locations(cls, locations: int) -> "Grid":
        """Returns the grid of a number of locations; CaptError if it is not the square of 2 or more."""
        side = math.isqrt(locations)
        if side < 2 or side**2 != locations:
            problem = f"{locations} spatial locations do not form a square grid with regions"
            raise CaptError(problem, location="--attention")
        return cls(side)

    @property
    def region_side(self) -> int:
        """Number of locations on each side of a region."""
        return max(1, math.floor(self.side / 3 + 0.5))

    def find_most_attended(self, weights: NDArray[np.floating[Any]]) -> Region:
        """Returns the region with the greatest sum of the attention weights [locations]; the first one if equal."""
        grid = np.asarray(weights, np.float64).reshape(self.side, self.side)
        sums = np.lib.stride_tricks.sliding_window_view(grid, (self.region_side, self.region_side)).sum(axis=(2, 3))
        row, column = np.unravel_index(np.argmax(sums), sums.shape)
        return int(row), int(column)

    def draw_other(self, region: Region, generator: np.random.Generator) -> Region:
        """Draws one of the regions that do not overlap this one."""
        firsts = range(self.side - self.region_side + 1)
        others = [
            (row, column)
            for row in firsts
            for column in firsts
            if max(abs(row - region[0]), abs(column - region[1])) >= self.region_side
        ]
        return others[generator.integers(len(others))]


def blank_region(image: Image.Image, resizer: Resizer, grid: Grid, region: Region) -> Image.Image:
    """Returns a copy of an RGB image in which the mean color of the image covers a region of the model's input."""
    (top, bottom), (left, right) = (
        _source_range(span, first / grid.side, (first + grid.region_side) / grid.side)
        for span, first in zip(resizer.compute_spans(image), region, strict=True)
    )
    mean = np.asarray(image).reshape(-1, 3).mean(axis=0)
    blanked = image.copy()
    if top < bottom and left < right:  # else the region is in the padding
        blanked.paste(tuple(int(value) for value in mean.round()), (left, top, right, bottom))
    return blanked


def _source_range(span: Span, first: float, last: float) -> tuple[int, int]:
    """Returns the source pixels of a range of the model's input, given as fractions of its side."""
    before = span.first - span.target_slice.start
    pixels = (round(span.to_source(before + fraction * span.target)) for fraction in (first, last))
    start, end = (min(max(pixel, 0), span.source) for pixel in pixels)
    return start, end
