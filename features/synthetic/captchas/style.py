"""Declares the style of a set of CAPTCHAs: labels, fonts, size, background and distortions."""

import re
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from features.synthetic.captchas.labels import LENGTHS, MAX_LENGTH, needs_shaping
from schemas.choices import CaptchaBackground
from schemas.errors import UsageError

WIDTH, HEIGHT = 600, 320
NUM_STROKES = (8, 20)
MAX_ROTATION = 24
STROKE_TYPES = ("line", "arc", "ellipse", "dot")
LABEL_WIDTH = (1 / 3, 2 / 3)
MIN_CHARACTER_WIDTH = 4  # pixels

_SIDES = (16, 4096)
_MOST_STROKES, _MOST_ROTATION, _MOST_SHEAR, _MOST_OVERLAP = 100, 90, 45, 0.5
_MOST_BLUR, _MOST_WEIGHT_CHANGE = 10, 10


@dataclass(frozen=True)
class CaptchaStyle:
    """The labels, the font files, the size and the difficulty of a set of CAPTCHAs.

    Each CAPTCHA has one label, one font and one value of each range, chosen uniformly.
    """

    words: tuple[str, ...]  # empty: random characters
    fonts: tuple[str, ...]
    num_strokes: tuple[int, int] = NUM_STROKES  # fewest and most lines, arcs, ellipses and dots
    max_rotation: float = MAX_ROTATION  # of a character, in degrees
    width: int = WIDTH  # in pixels
    height: int = HEIGHT
    characters: tuple[str, ...] = ()  # of random labels
    lengths: tuple[int, int] = LENGTHS  # fewest and most characters of random labels
    max_width: int | None = None  # None: all images have the same width
    label_width: tuple[float, float] = LABEL_WIDTH  # fractions of the width that the label covers
    background: CaptchaBackground = "speckles"
    background_images: tuple[str, ...] = ()  # files that replace `background`
    stroke_types: tuple[str, ...] = STROKE_TYPES
    weight_change: tuple[int, int] = (0, 0)  # pixels by which the lines of characters become thicker
    max_overlap: float = 0.0  # of two neighboring characters, in em
    max_shear: float = 0.0  # of a character, in degrees
    max_warp: float = 0.0  # displacement of a pixel in each direction, in pixels
    max_blur: float = 0.0  # radius in pixels

    def __post_init__(self) -> None:
        for option, low_high, least, most, example in (
            ("--num-strokes", self.num_strokes, 0, _MOST_STROKES, "8,20"),
            ("--lengths", self.lengths, 1, MAX_LENGTH, "4,6"),
            ("--label-width", self.label_width, 0.05, 1, "0.5,0.9"),
            ("--weight-change", self.weight_change, -_MOST_WEIGHT_CHANGE, _MOST_WEIGHT_CHANGE, "-3,0"),
        ):
            hint = f"Use two numbers from {least:g} to {most}, the smaller first, such as {example}."
            low, high = low_high
            _check(least <= low <= high <= most, f"{low:g},{high:g}", option, hint)
        for option, value, limit in (
            ("--max-rotation", self.max_rotation, _MOST_ROTATION),
            ("--max-shear", self.max_shear, _MOST_SHEAR),
            ("--max-overlap", self.max_overlap, _MOST_OVERLAP),
            ("--max-warp", self.max_warp, self.height / 8),
            ("--max-blur", self.max_blur, _MOST_BLUR),
        ):
            _check(0 <= value <= limit, f"{value:g}", option, f"Use 0 to {limit:g}.")
        self._check_size()

    def _check_size(self) -> None:
        for option, side in (("--width", self.width), ("--height", self.height)):
            _check(_SIDES[0] <= side <= _SIDES[1], str(side), option, f"Use {_SIDES[0]} to {_SIDES[1]}.")
        if self.max_width is not None:
            hint = f"Use {self.width} (--width) to {_SIDES[1]}."
            _check(self.width <= self.max_width <= _SIDES[1], str(self.max_width), "--max-width", hint)
        needed = MIN_CHARACTER_WIDTH * self.max_length
        hint = f"{self.max_length} characters need at least {needed} pixels. Use shorter labels, or a larger width."
        _check(needed <= self.width, str(self.width), "--width", hint)

    @cached_property
    def max_length(self) -> int:
        """The number of characters of the longest label."""
        return max(map(len, self.words)) if self.words else self.lengths[1]

    @cached_property
    def label_characters(self) -> frozenset[str]:
        """The characters of all labels."""
        return frozenset("".join(self.words) or self.characters)

    @property
    def needs_shaping(self) -> bool:
        """Whether some labels have characters that cannot be drawn one by one."""
        return needs_shaping("".join(self.label_characters))

    @property
    def changed_settings(self) -> dict[str, Any]:
        """The settings by name that are not the default, without the files and words."""
        names = [field.name for field in fields(self) if field.name not in ("words", "fonts", "background_images")]
        default = {field.name: field.default for field in fields(self)}
        changed = {name: getattr(self, name) for name in names if getattr(self, name) != default[name]}
        return {name: [*value] if isinstance(value, tuple) else value for name, value in changed.items()}


def _check(is_valid: bool, value: str, option: str, hint: str) -> None:
    if not is_valid:
        raise UsageError(f"got {value}", location=option, hint=hint)


def parse_integers(text: str, option: str, example: str) -> tuple[int, int]:
    """Parses `MIN,MAX`, two whole numbers."""
    match = re.fullmatch("(-?[0-9]+),(-?[0-9]+)", text)
    if match is None:
        raise UsageError(f"got {text!r}", location=option, hint=f"Separate two numbers by a comma: {example}.")
    return int(match[1]), int(match[2])


def parse_fractions(text: str, option: str, example: str) -> tuple[float, float]:
    """Parses `MIN,MAX`, two decimal fractions."""
    match = re.fullmatch(r"([0-9]*\.?[0-9]+),([0-9]*\.?[0-9]+)", text)
    if match is None:
        raise UsageError(f"got {text!r}", location=option, hint=f"Separate two fractions by a comma: {example}.")
    return float(match[1]), float(match[2])


def parse_stroke_types(text: str) -> tuple[str, ...]:
    """Parses `--stroke-types`: comma-separated names, in the order of `STROKE_TYPES`."""
    chosen = text.split(",")
    if unknown := [name for name in chosen if name not in STROKE_TYPES]:
        hint = f"Use some of {','.join(STROKE_TYPES)}."
        raise UsageError(f"got {unknown[0]!r}", location="--stroke-types", hint=hint)
    return tuple(name for name in STROKE_TYPES if name in chosen)
