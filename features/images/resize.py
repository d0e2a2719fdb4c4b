"""Resizes, crops and pads images to an extractor's input size as a table config describes.

    image → resized by Pillow or TensorFlow → both ends cropped (crop) or padded (pad, pad-border) → pixels

Only the pixels that are kept are computed.
"""

from dataclasses import dataclass, replace
from math import ceil, floor
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from schemas.choices import ResizeMethod, ResizeMethodOption, ResizeMode
from schemas.errors import RecordError, UsageError
from schemas.table_config import FeatureTableConfig

Pixels = NDArray[np.uint8 | np.float32]
_Indices = NDArray[np.intp]
_Floats = NDArray[np.float32]

MAX_INPUT_PIXELS = 1 << 24

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

    @property
    def visible(self) -> tuple[int, int]:
        """Range of source pixels that the target shows; padding is outside the source."""
        first = self.first - self.target_slice.start
        return floor(self.to_source(first)), ceil(self.to_source(first + self.target))

    def to_source(self, pixel: int) -> float:
        """Returns the position in the source at which a resized pixel starts."""
        return pixel * self.source / self.resized


@dataclass(frozen=True)
class Resizer:
    """Maps images to pixels of one size.

    `stretch` ignores the aspect ratio; the others keep it. `crop` covers the size and keeps the center. `pad` centers
    the whole image on black, `pad-border` on the color of its border (`measure_border_color`). The side that follows
    from the aspect ratio is rounded, halves up, to at least one pixel. A smaller image is enlarged.
    `trainer.export.image_graph` resizes in a TensorFlow graph, so a new mode needs both.

    Raises:
        UsageError: The size has more than `MAX_INPUT_PIXELS` pixels, or the shortest edge does not apply or is too
            small.
    """

    height: int  # of the result in pixels
    width: int
    method: ResizeMethod = "pillow-bilinear"
    mode: ResizeMode = "stretch"
    # Only for `crop`: length of the resized image's shorter side, at least that of the result's longer side. None: the
    # smallest one that covers the result.
    shortest_edge: int | None = None

    def __post_init__(self) -> None:
        size, least = f"{self.height}×{self.width}", max(self.height, self.width)
        if self.height * self.width > MAX_INPUT_PIXELS:
            message = f"{size} is more than {MAX_INPUT_PIXELS:,} pixels"
            raise UsageError(message, location="--height, --width", hint="Choose a smaller size.")
        if self.shortest_edge is not None and self.mode != "crop":
            message = f"the option does not apply to --resize-mode {self.mode}"
            hint = "Add --resize-mode crop, or omit the option."
            raise UsageError(message, location="--shortest-edge", hint=hint)
        if self.shortest_edge is not None and self.shortest_edge < least:
            message = f"{self.shortest_edge} does not cover a crop of {size}"
            raise UsageError(message, location="--shortest-edge", hint=f"Use at least {least}.")

    @classmethod
    def from_table_config(cls, table_config: FeatureTableConfig) -> Self:
        """Returns the resizer of a table config."""
        return cls(
            table_config.height,
            table_config.width,
            method=table_config.resize,
            mode=table_config.fit,
            shortest_edge=table_config.shorter_side,
        )

    @property
    def dtype(self) -> Literal["uint8", "float32"]:
        """Dtype of the resized pixels."""
        return "float32" if self.method == "tf-bilinear" else "uint8"

    def __call__(self, image: Image.Image) -> Pixels:
        """Returns an RGB image as [height, width, 3] of `dtype`, 0…255, in memory of its own; raises as `resize`."""
        rows, columns = self.compute_spans(image)
        pixels: Pixels = np.full((self.height, self.width, 3), self._choose_padding(image), self.dtype)
        pixels[rows.target_slice, columns.target_slice] = resize(image, rows, columns, self.method)
        return pixels

    def compute_draft_size(self, width: int, height: int) -> tuple[int, int] | None:
        """Returns the minimum width and height to decode an image at, or None for its full size."""
        return self._compute_resized(height, width)[::-1] if self.method == "draft-bilinear" else None

    def compute_spans(self, image: Image.Image) -> tuple[Span, Span]:
        """Returns the resizing of an image's rows and of its columns."""
        rows, columns = self._compute_resized(image.height, image.width)
        return Span(image.height, rows, self.height), Span(image.width, columns, self.width)

    def crop_visible(self, image: Image.Image) -> Image.Image:
        """Returns the part of an RGB image that the resized pixels show, at the image's own resolution.

        With `pad` and `pad-border`, the part is larger than the image: it includes the padding.
        """
        (top, bottom), (left, right) = (span.visible for span in self.compute_spans(image))
        view = Image.new("RGB", (right - left, bottom - top), self._choose_padding(image))
        view.paste(image, (-left, -top))
        return view

    def _choose_padding(self, image: Image.Image) -> tuple[int, int, int]:
        return measure_border_color(image) if self.mode == "pad-border" else (0, 0, 0)

    def _compute_resized(self, height: int, width: int) -> tuple[int, int]:
        """Returns the rows and columns of the resized image before it is cropped or padded."""
        if self.mode == "stretch":
            return self.height, self.width
        if self.shortest_edge is not None:
            rows = columns = self.shortest_edge
            is_scaled_by_rows = height <= width
        else:
            rows, columns = self.height, self.width
            is_wider = width * self.height >= height * self.width
            is_scaled_by_rows = is_wider == (self.mode == "crop")
        if is_scaled_by_rows:
            return rows, _scale_side(rows, width, height)
        return _scale_side(columns, height, width), columns


def measure_border_color(image: Image.Image) -> tuple[int, int, int]:
    """Returns the median color of an RGB image's border, each channel in 0…255; of two middle values, the smaller one.

    The border is an eighth of the shorter side wide, so that a frame of one or two pixels does not matter.
    """
    (width, height), border = image.size, max(1, min(image.size) // 8)
    top, bottom = (0, 0, width, border), (0, height - border, width, height)
    left, right = (0, 0, border, height), (width - border, 0, width, height)
    strips = (np.asarray(image.crop(box)).reshape(-1, 3) for box in (top, bottom, left, right))
    colors = np.sort(np.concatenate([*strips]), axis=0)
    red, green, blue = colors[(len(colors) - 1) // 2].tolist()
    return red, green, blue


def make_resizer(
    height: int, width: int, method: ResizeMethodOption, mode: ResizeMode, shortest_edge: int | None
) -> Resizer:
    """Returns the resizer for the values of a command's options; raises as `Resizer`.

    Options with the same effect produce equal resizers.
    """
    methods: dict[ResizeMethodOption, ResizeMethod]
    methods = {"pillow": "pillow-bilinear", "draft": "draft-bilinear", "tf": "tf-bilinear"}
    resizer = Resizer(height, width, methods[method], mode, shortest_edge)
    return replace(resizer, shortest_edge=None) if height == width == shortest_edge else resizer


def resize(image: Image.Image, rows: Span, columns: Span, method: ResizeMethod) -> Pixels:
    """Returns the kept pixels [rows.kept, columns.kept, 3], 0…255, of an RGB image of rows.source × columns.source.

    `pillow-bilinear` is antialiased (a triangle filter over all pixels that a resized pixel covers) and returns uint8.
    `draft-bilinear` is the same for an image that was decoded at a smaller scale. `tf-bilinear` is `tf.image.resize`
    without antialiasing, a mean of at most four pixels; it returns float32, not rounded.

    Raises:
        RecordError: `too large`: the intermediate result of a strip would fill the memory.
    """
    return (_resize_by_tensorflow if method == "tf-bilinear" else _resize_by_pillow)(image, rows, columns)


def _resize_by_pillow(image: Image.Image, rows: Span, columns: Span) -> NDArray[np.uint8]:
    left, right = columns.to_source(columns.first), columns.to_source(columns.first + columns.kept)
    top, bottom = rows.to_source(rows.first), rows.to_source(rows.first + rows.kept)
    if (bottom - top) * columns.kept > _MAX_STRIP_PIXELS:
        raise RecordError("decode", "too large", f"a strip of {image.width}×{image.height}, which cannot be resized")
    size = (columns.kept, rows.kept)
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=(left, top, right, bottom)))


def _resize_by_tensorflow(image: Image.Image, rows: Span, columns: Span) -> _Floats:
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


def _find_neighbors(span: Span) -> tuple[_Indices, _Indices, _Floats]:
    """Returns the two source pixels next to each kept pixel, and the weight of the second one."""
    half = np.float32(0.5)
    scale = np.float32(span.source) / np.float32(span.resized)
    at = (np.arange(span.first, span.first + span.kept).astype(np.float32) + half) * scale - half
    before = np.floor(at)
    first = np.maximum(before, 0).astype(np.intp)
    return first, np.minimum(np.ceil(at).astype(np.intp), span.source - 1), at - before


def _resize_rows(rows: NDArray[np.uint8], left: _Indices, right: _Indices, weight: _Floats) -> _Floats:
    first, second = (rows.take(side, axis=1, mode="clip").astype(np.float32) for side in (left, right))
    return _interpolate(first, second, weight[:, None])


def _interpolate(first: _Floats, second: _Floats, weight: _Floats) -> _Floats:
    """Interpolates in the memory of `second`."""
    second -= first
    second *= weight
    second += first
    return second


def _scale_side(scaled: int, side: int, other: int) -> int:
    """Scales `side` by scaled / other and rounds it, halves up, to at least 1."""
    return max(1, (2 * scaled * side + other) // (2 * other))
