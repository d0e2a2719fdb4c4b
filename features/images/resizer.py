"""Fitting: a picture at the size that a network wants, by the rules that a recipe names.

picture → resized → what is too much cut off both ends (crop), what is too little black at both (pad) → pixels
"""

from dataclasses import dataclass, replace
from math import ceil, floor
from typing import Literal, Self

import numpy as np
from PIL import Image

from features.images.resize import Pixels, Span, resize
from schemas.choices import Fit, Resize
from schemas.errors import UsageError
from schemas.table_config import FeatureTableConfig

MAX_FITTED = 1 << 24

ResizeOption = Literal["pillow", "draft", "tf"]
_RULES: dict[ResizeOption, Resize] = {"pillow": "pillow-bilinear", "draft": "draft-bilinear", "tf": "tf-bilinear"}


@dataclass(frozen=True)
class Resizer:
    """How pictures are brought to one size.

    `stretch` ignores proportions, the others keep them. `crop` covers the size and keeps the middle; `pad` shows all of
    the picture in the middle of black. The side that follows from the other is rounded, halves up, and is one pixel at
    least. A picture smaller than the size is enlarged.

    Args:
        height: int. Rows of the result, at least 1.
        width: int. Columns of the result, at least 1.
        resize: str. A rule of `features.images.resize`.
        fit: str. `stretch`, `crop` or `pad`.
        shorter_side: int or None. `crop` only: pixels of the resized picture's shorter side, at least as many as the
            longer side of the result has; None for the fewest that cover the result.

    Raises:
        UsageError: more than `MAX_FITTED` pixels; a `shorter_side` that is none of a crop, or does not cover it.
    """

    height: int
    width: int
    resize: Resize = "pillow-bilinear"
    fit: Fit = "stretch"
    shorter_side: int | None = None

    def __post_init__(self) -> None:
        if self.height * self.width > MAX_FITTED:
            raise UsageError(
                f"{self.height}×{self.width} are more than {MAX_FITTED:,} pixels",
                location="--height, --width",
                hint="give fewer",
            )
        least = max(self.height, self.width)
        if self.shorter_side is not None and self.fit != "crop":
            raise UsageError(
                f"not for --resize-mode {self.fit}",
                location="--shortest-edge",
                hint="add --resize-mode crop, or leave it out",
            )
        if self.shorter_side is not None and self.shorter_side < least:
            raise UsageError(
                f"{self.shorter_side} does not cover a crop of {self.height}×{self.width}",
                location="--shortest-edge",
                hint=f"give {least} or more",
            )

    @classmethod
    def of(cls, table_config: FeatureTableConfig) -> Self:
        """The fitting that a recipe names."""
        return cls(
            table_config.height, table_config.width, table_config.resize, table_config.fit, table_config.shorter_side
        )

    @property
    def dtype(self) -> Literal["uint8", "float32"]:
        """Of the pixels that it gives."""
        return "float32" if self.resize == "tf-bilinear" else "uint8"

    def __call__(self, image: Image.Image) -> Pixels:
        """A picture's pixels at this size.

        Args:
            image: PIL image of mode RGB.

        Returns: array [height, width, 3] of `dtype`, values 0…255, of its own memory.

        Raises: RecordError as `resize` does.
        """
        rows, columns = self.spans(image)
        pixels: Pixels = np.zeros((self.height, self.width, 3), self.dtype)
        pixels[rows.place, columns.place] = resize(image, rows, columns, self.resize)
        return pixels

    def draft_size(self, width: int, height: int) -> tuple[int, int] | None:
        """Columns and rows that are enough of a picture to begin with, None where all are wanted."""
        return self._resized(height, width)[::-1] if self.resize == "draft-bilinear" else None

    def spans(self, image: Image.Image) -> tuple[Span, Span]:
        """What becomes of a picture's rows, and of its columns."""
        rows, columns = self._resized(image.height, image.width)
        return Span(image.height, rows, self.height), Span(image.width, columns, self.width)

    def view(self, image: Image.Image) -> Image.Image:
        """What the result shows of a picture, black included, at the picture's own resolution.

        Args:
            image: PIL image of mode RGB.
        """
        (top, bottom), (left, right) = map(_shown, self.spans(image))
        return image.crop((left, top, right, bottom))

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the resized picture, before anything is cut off or added."""
        if self.fit == "stretch":
            return self.height, self.width
        if self.shorter_side is not None:
            rows = columns = self.shorter_side
            is_by_rows = height <= width
        else:
            rows, columns = self.height, self.width
            is_wider = width * self.height >= height * self.width
            is_by_rows = is_wider == (self.fit == "crop")
        if is_by_rows:
            return rows, _in_proportion(rows, width, height)
        return _in_proportion(columns, height, width), columns


def make_resizer(height: int, width: int, resize: ResizeOption, fit: Fit, shorter_side: int | None) -> Resizer:
    """The fitting that a command's options ask for; what would do the same is the same.

    Args:
        height: int. Rows of the result.
        width: int. Columns of the result.
        resize: str. What `--resize-method` says.
        fit: str. What `--resize-mode` says.
        shorter_side: int or None. What `--shortest-edge` says.

    Raises:
        UsageError: as `Fitting` does.
    """
    fitting = Resizer(height, width, _RULES[resize], fit, shorter_side)
    covers_at_least = height == width == shorter_side
    return replace(fitting, shorter_side=None) if covers_at_least else fitting


def _in_proportion(side: int, other: int, own: int) -> int:
    """The other side where one's own becomes `side`, to the nearest whole number, halves up, at least 1."""
    return max(1, (2 * side * other + own) // (2 * own))


def _shown(span: Span) -> tuple[int, int]:
    """The source's pixels, counted beyond its ends where there is black, that the wanted ones show."""
    first = span.first - span.place.start
    return floor(span.at_source(first)), ceil(span.at_source(first + span.wanted))
