"""Resizes, crops and pads images to an extractor's input size as a table config describes.

image → resized → both ends cropped (crop) or padded with black (pad) → pixels
"""

from dataclasses import dataclass, replace
from math import ceil, floor
from typing import Literal, Self

import numpy as np
from PIL import Image

from features.images.resize import Pixels, Span, resize
from schemas.choices import ResizeMethod, ResizeMethodOption, ResizeMode
from schemas.errors import UsageError
from schemas.table_config import FeatureTableConfig

MAX_INPUT_PIXELS = 1 << 24

_METHODS: dict[ResizeMethodOption, ResizeMethod] = {
    "pillow": "pillow-bilinear",
    "draft": "draft-bilinear",
    "tf": "tf-bilinear",
}


@dataclass(frozen=True)
class Resizer:
    """Maps images to pixels of one size.

    `stretch` ignores the aspect ratio; `crop` and `pad` keep it. `crop` covers the size and keeps the center. `pad`
    centers the whole image on black. The side that follows from the aspect ratio is rounded, halves up, to at least one
    pixel. A smaller image is enlarged. `trainer.export.image_graph` resizes in a TensorFlow graph, so a new mode
    needs both.

    Args:
        height: Height of the result in pixels.
        width: Width of the result in pixels.
        method: Resize method.
        mode: Resize mode.
        shortest_edge: Only for `crop`: length of the resized image's shorter side, at least that of the result's longer
            side. None: the smallest one that covers the result.

    Raises:
        UsageError: The size has more than `MAX_INPUT_PIXELS` pixels, or the shortest edge does not apply or is too
            small.
    """

    height: int
    width: int
    method: ResizeMethod = "pillow-bilinear"
    mode: ResizeMode = "stretch"
    shortest_edge: int | None = None

    def __post_init__(self) -> None:
        if self.height * self.width > MAX_INPUT_PIXELS:
            raise UsageError(
                f"{self.height}×{self.width} is more than {MAX_INPUT_PIXELS:,} pixels",
                location="--height, --width",
                hint="Choose a smaller size.",
            )
        least = max(self.height, self.width)
        if self.shortest_edge is not None and self.mode != "crop":
            raise UsageError(
                f"the option does not apply to --resize-mode {self.mode}",
                location="--shortest-edge",
                hint="Add --resize-mode crop, or omit the option.",
            )
        if self.shortest_edge is not None and self.shortest_edge < least:
            raise UsageError(
                f"{self.shortest_edge} does not cover a crop of {self.height}×{self.width}",
                location="--shortest-edge",
                hint=f"Use at least {least}.",
            )

    @classmethod
    def from_table_config(cls, table_config: FeatureTableConfig) -> Self:
        """Returns the resizer of a table config."""
        return cls(
            table_config.height, table_config.width, table_config.resize, table_config.fit, table_config.shorter_side
        )

    @property
    def dtype(self) -> Literal["uint8", "float32"]:
        """Dtype of the resized pixels."""
        return "float32" if self.method == "tf-bilinear" else "uint8"

    def __call__(self, image: Image.Image) -> Pixels:
        """Resizes an image of mode RGB.

        Returns:
            Array [height, width, 3] of `dtype`, values 0…255, in memory that no other array shares.

        Raises:
            RecordError: As raised by `resize`.
        """
        rows, columns = self.compute_spans(image)
        pixels: Pixels = np.zeros((self.height, self.width, 3), self.dtype)
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
        """Returns the part of an RGB image that the result shows, padding included, at the image's own resolution."""
        (top, bottom), (left, right) = map(_find_visible, self.compute_spans(image))
        return image.crop((left, top, right, bottom))

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


def make_resizer(
    height: int, width: int, method: ResizeMethodOption, mode: ResizeMode, shortest_edge: int | None
) -> Resizer:
    """Returns the resizer for a command's options. Options with the same effect produce equal resizers.

    Args:
        height: Height of the result in pixels.
        width: Width of the result in pixels.
        method: Value of `--resize-method`.
        mode: Value of `--resize-mode`.
        shortest_edge: Value of `--shortest-edge`.

    Raises:
        UsageError: As raised by `Resizer`.
    """
    resizer = Resizer(height, width, _METHODS[method], mode, shortest_edge)
    is_default = height == width == shortest_edge
    return replace(resizer, shortest_edge=None) if is_default else resizer


def _scale_side(scaled: int, side: int, other: int) -> int:
    """Scales `side` by scaled / other and rounds it, halves up, to at least 1."""
    return max(1, (2 * scaled * side + other) // (2 * other))


def _find_visible(span: Span) -> tuple[int, int]:
    """Returns the range of source pixels that the target shows; padding is outside the source."""
    first = span.first - span.target_slice.start
    return floor(span.to_source(first)), ceil(span.to_source(first + span.target))
