"""Resizing: the part of a resized picture that is kept, in Pillow's way or in TensorFlow's.

What is not kept is never computed, so that a long strip costs no more than another picture.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from schemas.choices import Resize
from schemas.errors import RecordError

Pixels = NDArray[np.uint8 | np.float32]

_MOST_PIXELS = 1 << 28  # of a picture that Pillow has resized in one direction: a gibibyte
_BLOCK = 16  # rows at once: what lies between fits a processor's cache, and is freed without a call to the system


@dataclass(frozen=True)
class Span:
    """One side of a picture: `source` pixels are resized to `resized`, which land in the middle of `wanted` ones.

    Where the two differ by an odd number, the end has the one that is cut off, or black, more.
    """

    source: int
    resized: int
    wanted: int

    @property
    def first(self) -> int:
        """The first of the resized pixels that is kept."""
        return max(0, self.resized - self.wanted) // 2

    @property
    def kept(self) -> int:
        """How many of the resized pixels are kept."""
        return min(self.resized, self.wanted)

    @property
    def place(self) -> slice:
        """Where the kept pixels land among the wanted ones."""
        before = max(0, self.wanted - self.resized) // 2
        return slice(before, before + self.kept)

    def at_source(self, pixel: int) -> float:
        """Where among the source's pixels a resized pixel begins."""
        return pixel * self.source / self.resized


def resize(image: Image.Image, rows: Span, columns: Span, rule: Resize) -> Pixels:
    """The kept pixels of a resized picture.

    Args:
        image: PIL image of mode RGB, of `rows.source` × `columns.source` pixels.
        rows: Span. What becomes of its rows.
        columns: Span. What becomes of its columns.
        rule: str. `pillow-bilinear` is antialiased (a triangle over all the pixels that a resized pixel covers) and
            gives uint8; so does `draft-bilinear`, of a picture that was decoded smaller. `tf-bilinear` is
            `tf.image.resize` without antialias, of which a pixel is a mean of four at most; it gives float32, which is
            not rounded.

    Returns: array [rows.kept, columns.kept, 3], values 0…255.

    Raises: RecordError of stage `decode` and reason `too large`: a strip that would fill the memory on the way.
    """
    return _RULES[rule](image, rows, columns)


def _by_pillow(image: Image.Image, rows: Span, columns: Span) -> NDArray[np.uint8]:
    left, right = columns.at_source(columns.first), columns.at_source(columns.first + columns.kept)
    top, bottom = rows.at_source(rows.first), rows.at_source(rows.first + rows.kept)
    if (bottom - top) * columns.kept > _MOST_PIXELS:
        raise RecordError("decode", "too large", f"a strip of {image.width}×{image.height}, which cannot be resized")
    size = (columns.kept, rows.kept)
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=(left, top, right, bottom)))


def _by_tensorflow(image: Image.Image, rows: Span, columns: Span) -> NDArray[np.float32]:
    """What TensorFlow's ResizeBilinear makes with half-pixel centres, bit for bit.

    The same float32 operations in the same order: along the rows, then across them. The kernel itself makes all of
    the resized picture or nothing, and would bring TensorFlow to wherever pictures are decoded.
    """
    upper, lower, down = _neighbours(rows)
    pixels, sides = np.asarray(image), _neighbours(columns)
    resized = np.empty((rows.kept, columns.kept, 3), np.float32)
    for start in range(0, rows.kept, _BLOCK):
        block = slice(start, start + _BLOCK)
        above, below = _along(pixels[upper[block]], *sides), _along(pixels[lower[block]], *sides)
        resized[block] = _mix(above, below, down[block, None, None])
    return resized


def _neighbours(span: Span) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """For each kept pixel the two source pixels that it lies between, and how far it is from the first, 0…1."""
    half = np.float32(0.5)
    scale = np.float32(span.source) / np.float32(span.resized)
    at = (np.arange(span.first, span.first + span.kept).astype(np.float32) + half) * scale - half
    before = np.floor(at)
    first = np.maximum(before, 0).astype(np.intp)
    return first, np.minimum(np.ceil(at).astype(np.intp), span.source - 1), at - before


def _along(
    lines: NDArray[np.uint8], left: NDArray[np.intp], right: NDArray[np.intp], share: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Lines of pixels resized along themselves."""
    first, second = (lines.take(side, axis=1, mode="clip").astype(np.float32) for side in (left, right))
    return _mix(first, second, share[:, None])


def _mix(first: NDArray[np.float32], second: NDArray[np.float32], share: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of two, of which the second has this share, in the memory of the second."""
    second -= first
    second *= share
    second += first
    return second


_RULES: dict[Resize, Callable[[Image.Image, Span, Span], Pixels]] = {
    "pillow-bilinear": _by_pillow,
    "draft-bilinear": _by_pillow,
    "tf-bilinear": _by_tensorflow,
}
