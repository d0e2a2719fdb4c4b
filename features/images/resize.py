"""Resizes images with Pillow's or TensorFlow's bilinear method and computes only the pixels that are kept."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from schemas.choices import ResizeMethod
from schemas.errors import RecordError

Pixels = NDArray[np.uint8 | np.float32]

_MAX_STRIP_PIXELS = 1 << 28  # of an image that Pillow has resized in one direction: 1 GiB
_BLOCK_ROWS = 16  # the intermediate arrays fit into a processor's cache


@dataclass(frozen=True)
class Span:
    """One side of an image: `source` pixels are resized to `resized` pixels, centered on `target` pixels.

    If the difference is odd, the end is cropped or padded by one pixel more than the start.
    """

    source: int
    resized: int
    target: int

    @property
    def first(self) -> int:
        """Index of the first resized pixel that is kept."""
        return max(0, self.resized - self.target) // 2

    @property
    def kept(self) -> int:
        """Number of resized pixels that are kept."""
        return min(self.resized, self.target)

    @property
    def target_slice(self) -> slice:
        """Indices of the kept pixels among the target pixels."""
        before = max(0, self.target - self.resized) // 2
        return slice(before, before + self.kept)

    def to_source(self, pixel: int) -> float:
        """Returns the position in the source at which a resized pixel starts."""
        return pixel * self.source / self.resized


def resize(image: Image.Image, rows: Span, columns: Span, method: ResizeMethod) -> Pixels:
    """Returns the kept pixels of a resized image.

    Args:
        image: RGB image of `rows.source` × `columns.source` pixels.
        rows: Resizing of the rows.
        columns: Resizing of the columns.
        method: `pillow-bilinear` is antialiased (a triangle filter over all pixels that a resized pixel covers) and
            returns uint8. `draft-bilinear` is the same for an image that was decoded at a smaller scale. `tf-bilinear`
            is `tf.image.resize` without antialiasing, a mean of at most four pixels; it returns float32, not rounded.

    Returns:
        Array [rows.kept, columns.kept, 3], values 0…255.

    Raises:
        RecordError: `too large`: the intermediate result of a strip would fill the memory.
    """
    return _METHODS[method](image, rows, columns)


def _resize_by_pillow(image: Image.Image, rows: Span, columns: Span) -> NDArray[np.uint8]:
    left, right = columns.to_source(columns.first), columns.to_source(columns.first + columns.kept)
    top, bottom = rows.to_source(rows.first), rows.to_source(rows.first + rows.kept)
    if (bottom - top) * columns.kept > _MAX_STRIP_PIXELS:
        raise RecordError("decode", "too large", f"a strip of {image.width}×{image.height}, which cannot be resized")
    size = (columns.kept, rows.kept)
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=(left, top, right, bottom)))


def _resize_by_tensorflow(image: Image.Image, rows: Span, columns: Span) -> NDArray[np.float32]:
    """Computes TensorFlow's ResizeBilinear with half-pixel centers, bit for bit.

    It runs the same float32 operations in the same order: along the rows, then across them. TensorFlow's kernel
    resizes only whole images, and would make the decoding processes import TensorFlow.
    """
    upper, lower, weight = _find_neighbors(rows)
    pixels, neighbors = np.asarray(image), _find_neighbors(columns)
    resized = np.empty((rows.kept, columns.kept, 3), np.float32)
    for start in range(0, rows.kept, _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        above, below = _resize_rows(pixels[upper[block]], *neighbors), _resize_rows(pixels[lower[block]], *neighbors)
        resized[block] = _interpolate(above, below, weight[block, None, None])
    return resized


def _find_neighbors(span: Span) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Returns the two source pixels next to each kept pixel, and the weight of the second one."""
    half = np.float32(0.5)
    scale = np.float32(span.source) / np.float32(span.resized)
    at = (np.arange(span.first, span.first + span.kept).astype(np.float32) + half) * scale - half
    before = np.floor(at)
    first = np.maximum(before, 0).astype(np.intp)
    return first, np.minimum(np.ceil(at).astype(np.intp), span.source - 1), at - before


def _resize_rows(
    rows: NDArray[np.uint8], left: NDArray[np.intp], right: NDArray[np.intp], weight: NDArray[np.float32]
) -> NDArray[np.float32]:
    first, second = (rows.take(side, axis=1, mode="clip").astype(np.float32) for side in (left, right))
    return _interpolate(first, second, weight[:, None])


def _interpolate(
    first: NDArray[np.float32], second: NDArray[np.float32], weight: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Interpolates in the memory of `second`."""
    second -= first
    second *= weight
    second += first
    return second


_METHODS: dict[ResizeMethod, Callable[[Image.Image, Span, Span], Pixels]] = {
    "pillow-bilinear": _resize_by_pillow,
    "draft-bilinear": _resize_by_pillow,
    "tf-bilinear": _resize_by_tensorflow,
}
