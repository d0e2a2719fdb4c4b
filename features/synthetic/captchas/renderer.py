"""Draws CAPTCHAs: a label with rotated, colored characters among lines, arcs, ellipses and dots.

background → half of the strokes → characters → the other strokes → waves → blur → PNG

An effect that the style does not use draws no random value, so a new effect leaves the images of other styles as they
are. Characters of a joined or right-to-left script are drawn as one piece.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from features.synthetic.captchas.backgrounds import draw_background
from features.synthetic.captchas.distortions import change_weight, shear_mask, warp_image
from features.synthetic.captchas.fonts import open_font
from features.synthetic.captchas.labels import draw_label, needs_shaping
from features.synthetic.captchas.style import HEIGHT, LABEL_WIDTH, CaptchaStyle
from features.text.visual_order import is_right_to_left

# Lengths in pixels are those of images of 100 or more by 100 to 320 pixels; `_find_scale` adapts them to others.
_MIN_SIDE = 100
_MARGIN = 8  # between characters and the border
_FONT_SIZE = (56, 108)  # pixels per em
_MIN_FONT_SIZE = 5
_SIZE_FACTOR = (0.85, 1.2)
_SHRINK = 0.9  # factor of the font size if the label does not fit
_MAX_SHIFT = 0.12  # em, up or down


Floats = NDArray[np.float64]

# The fonts were checked before they are drawn; the cache lives in the processes that draw.
_open_font = lru_cache(maxsize=1024)(open_font)


class LabelTooLargeError(ValueError):
    """A label does not fit into its image at the smallest font size."""


@dataclass(frozen=True)
class _Glyph:
    """Mask of a character, mode L, and its center relative to the start of the label, in pixels."""

    mask: Image.Image
    x: float
    y: float


@dataclass(frozen=True)
class _Label:
    """A label, and everything that does not change while its characters are placed."""

    text: str
    font: str
    image_size: tuple[int, int]
    weight_change: int  # in pixels
    style: CaptchaStyle

    @property
    def margin(self) -> float:
        """Pixels between characters and the border; waves move the characters into them."""
        return _MARGIN * _find_scale(self.image_size) + self.style.max_warp

    @cached_property
    def is_shaped(self) -> bool:
        return needs_shaping(self.text)

    @property
    def font_sizes(self) -> tuple[float, float]:
        """The smallest and largest size in pixels per em; only the height limits a label of a width of the user's."""
        if self.style.label_width != LABEL_WIDTH:
            return _MIN_FONT_SIZE, self.image_size[1]
        scale = _find_scale(self.image_size)
        return _FONT_SIZE[0] * scale, _FONT_SIZE[1] * scale

    @property
    def pieces(self) -> list[str]:
        """The parts that are drawn separately: characters, or the whole label."""
        return [self.text] if self.is_shaped else [*self.text]

    def open_font(self, size: int) -> ImageFont.FreeTypeFont:
        return _open_font(self.font, size, is_shaped=self.is_shaped)


def choose_label(style: CaptchaStyle, random: np.random.Generator) -> str:
    """Returns a random label of a style."""
    if style.words:
        return style.words[random.integers(len(style.words))]
    return draw_label(style.characters, style.lengths, random)


def make_generator(seed: int, number: int) -> np.random.Generator:
    """Returns the random generator of a CAPTCHA; its first values determine the label."""
    return np.random.default_rng((seed, number))


def draw_captcha(seed: int, number: int, style: CaptchaStyle) -> tuple[Image.Image, str]:
    """Returns a CAPTCHA in RGB and its label. Equal arguments produce equal results.

    Raises:
        LabelTooLargeError: The label does not fit into the image.
    """
    random = make_generator(seed, number)
    label = choose_label(style, random)
    font = style.fonts[random.integers(len(style.fonts))]
    width = style.width if style.max_width is None else int(random.integers(style.width, style.max_width + 1))
    image = draw_background(style.background, style.background_images, (width, style.height), random)
    pen = ImageDraw.Draw(image)
    strokes = int(random.integers(style.num_strokes[0], style.num_strokes[1] + 1))
    above = int(random.binomial(strokes, 0.5))
    for _ in range(strokes - above):
        _draw_stroke(pen, image.size, style.stroke_types, random)
    change = int(random.integers(style.weight_change[0], style.weight_change[1] + 1)) if any(style.weight_change) else 0
    drawn = _Label(label, font, image.size, change, style)
    _draw_glyphs(image, drawn.margin, _place_glyphs(drawn, random), random)
    for _ in range(above):
        _draw_stroke(pen, image.size, style.stroke_types, random)
    return _distort(image, style, random), label


def _find_scale(size: tuple[int, int]) -> float:
    """Returns the factor of lengths in pixels: 1 for all but small and high images."""
    return min(1.0, min(size) / _MIN_SIDE) * max(1.0, size[1] / HEIGHT)


def _distort(image: Image.Image, style: CaptchaStyle, random: np.random.Generator) -> Image.Image:
    if style.max_warp:
        image = warp_image(image, style.max_warp, random)
    if style.max_blur:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(0, style.max_blur)))
    return image


def encode_png(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _place_glyphs(label: _Label, random: np.random.Generator) -> list[_Glyph]:
    """Places characters of random size and rotation along a line that covers a part of the width.

    If they do not fit into a small image, they are placed again with a smaller font.
    """
    room, scale = np.array(label.image_size) - 2 * label.margin, 1.0
    while True:
        glyphs = _try_to_place_glyphs(label, scale, random)
        low, high = _find_extent(glyphs)
        if np.all(high - low <= room):
            return glyphs
        scale *= _SHRINK


def _try_to_place_glyphs(label: _Label, scale: float, random: np.random.Generator) -> list[_Glyph]:
    style, width = label.style, label.image_size[0]
    label_width = random.uniform(style.label_width[0] * width, style.label_width[1] * width)
    natural_width = sum(label.open_font(100).getlength(piece, direction=_direction(piece)) for piece in label.pieces)
    natural_width /= 100
    low, high = label.font_sizes
    size = float(np.clip(label_width / natural_width * random.uniform(0.75, 1), low, high)) * scale
    if size < _MIN_FONT_SIZE:
        raise LabelTooLargeError(f"{label.text!r} does not fit into {width}×{label.image_size[1]} pixels")
    gap = max(0.0, label_width - natural_width * size) / len(label.pieces)
    glyphs, x = [], 0.0
    for piece in label.pieces:
        em = round(size * random.uniform(*_SIZE_FACTOR))
        upright, center = _draw_upright(label.open_font(em), piece, label.weight_change)
        if style.max_shear:
            upright = shear_mask(upright, random.uniform(-style.max_shear, style.max_shear))
        mask = _rotate(upright, random.uniform(-style.max_rotation, style.max_rotation))
        x += mask.width / 2
        glyphs.append(_Glyph(mask, x, center + em * random.uniform(-_MAX_SHIFT, _MAX_SHIFT)))
        x += mask.width / 2 + random.uniform(0, min(2 * gap, 0.5 * em))
        if style.max_overlap:
            x -= em * random.uniform(0, style.max_overlap)
    return glyphs


def _draw_upright(font: ImageFont.FreeTypeFont, piece: str, weight_change: int) -> tuple[Image.Image, float]:
    """Returns the mask of a character, and the distance of its center from the top of the line."""
    left, top, right, bottom = (round(edge) for edge in font.getbbox(piece, direction=_direction(piece)))
    margin = abs(weight_change)
    upright = Image.new("L", (right - left + 2 * margin, bottom - top + 2 * margin))
    ImageDraw.Draw(upright).text((margin - left, margin - top), piece, fill=255, font=font, direction=_direction(piece))
    return change_weight(upright, weight_change), (top + bottom) / 2


def _direction(piece: str) -> str | None:
    """Returns the direction in which a recognizer reads a piece with right-to-left characters; None for others."""
    return "rtl" if any(map(is_right_to_left, piece)) else None


def _rotate(upright: Image.Image, degrees: float) -> Image.Image:
    rotated = upright.rotate(degrees, Image.Resampling.BICUBIC, expand=True)
    return rotated.crop(rotated.getbbox())


def _draw_glyphs(image: Image.Image, margin: float, glyphs: Sequence[_Glyph], random: np.random.Generator) -> None:
    """Draws all glyphs at one random position within the margins, each in its own color."""
    (left, top), (right, bottom) = _find_extent(glyphs)
    x = random.uniform(margin - left, image.width - margin - right)
    y = random.uniform(margin - top, image.height - margin - bottom)
    centers = np.array([(glyph.x, glyph.y) for glyph in glyphs])
    halves = np.array([glyph.mask.size for glyph in glyphs]) / 2
    for glyph, (left, top) in zip(glyphs, centers - halves + (x, y), strict=True):
        color = random.uniform(0, 1), random.uniform(0.4, 1), random.uniform(0.25, 0.85)  # dark enough to read
        image.paste(_to_rgb(*color), (round(left), round(top)), glyph.mask)


def _find_extent(glyphs: Sequence[_Glyph]) -> tuple[Floats, Floats]:
    """Returns the left and top, and the right and bottom of all glyphs."""
    centers = np.array([(glyph.x, glyph.y) for glyph in glyphs])
    halves = np.array([glyph.mask.size for glyph in glyphs]) / 2
    return (centers - halves).min(axis=0), (centers + halves).max(axis=0)


def _to_rgb(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _draw_stroke(
    pen: ImageDraw.ImageDraw, size: tuple[int, int], types: Sequence[str], random: np.random.Generator
) -> None:
    """Draws a line, arc, ellipse or dot of random color and position."""
    scale = _find_scale(size)
    kind, width = types[int(random.integers(len(types)))], max(1, round(int(random.integers(1, 5)) * scale))
    color = _to_rgb(random.uniform(0, 1), random.uniform(0.3, 1), random.uniform(0.3, 1))
    x, y = random.uniform(0, size[0]), random.uniform(0, size[1])
    if kind == "line":
        end = random.uniform(0, size[0]), random.uniform(0, size[1])
        pen.line([(x, y), end], color, width)
        return
    if kind == "dot":
        radius = random.uniform(2, 8) * scale
        pen.ellipse([x - radius, y - radius, x + radius, y + radius], color)
        return
    radius_x, radius_y = random.uniform(15, 180) * scale, random.uniform(15, 110) * scale
    box = [x - radius_x, y - radius_y, x + radius_x, y + radius_y]
    if kind == "arc":
        start = random.uniform(0, 360)
        pen.arc(box, start, start + random.uniform(60, 240), color, width)
    else:
        pen.ellipse(box, outline=color, width=width)
