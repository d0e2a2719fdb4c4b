"""Draws CAPTCHAs: a label with rotated, colored characters among lines, arcs, ellipses and dots.

speckled background → half of the strokes → characters → the other strokes → PNG
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from features.synthetic.captchas.style import CaptchaStyle, open_font

_MARGIN = 8  # pixels between characters and the border
_MIN_LABEL_WIDTH, _MAX_LABEL_WIDTH = 1 / 3, 2 / 3  # of the width
_FONT_SIZE = (56, 108)  # pixels per em
_SIZE_FACTOR = (0.85, 1.2)
_SHRINK = 0.9  # factor of the font size if the label does not fit
_MAX_SHIFT = 0.12  # em, up or down
_SPECKLE_GRAY = (110, 235)
_NUM_SPECKLES = (4, 13)  # of 256 pixels


Floats = NDArray[np.float64]

# The fonts were checked before they are drawn; the cache lives in the processes that draw.
_open_font = lru_cache(maxsize=1024)(open_font)


@dataclass(frozen=True)
class _Glyph:
    """Mask of a character, mode L, and its center relative to the start of the label, in pixels."""

    mask: Image.Image
    x: float
    y: float


def draw_captcha(seed: int, number: int, style: CaptchaStyle) -> tuple[Image.Image, str]:
    """Returns a CAPTCHA, RGB in the size of the style, and its label. Equal arguments produce equal results."""
    random = np.random.default_rng((seed, number))
    label = style.words[random.integers(len(style.words))]
    font = style.fonts[random.integers(len(style.fonts))]
    image = _draw_background(style, random)
    pen = ImageDraw.Draw(image)
    strokes = int(random.integers(style.num_strokes[0], style.num_strokes[1] + 1))
    above = int(random.binomial(strokes, 0.5))
    for _ in range(strokes - above):
        _draw_stroke(pen, image.size, random)
    _draw_glyphs(image, random, _place_glyphs(label, font, style, random))
    for _ in range(above):
        _draw_stroke(pen, image.size, random)
    return image, label


def encode_png(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _draw_background(style: CaptchaStyle, random: np.random.Generator) -> Image.Image:
    grays = np.full(256, 255, np.uint8)
    speckles = int(random.integers(*_NUM_SPECKLES))
    grays[:speckles] = random.integers(*_SPECKLE_GRAY, speckles)
    noise = np.frombuffer(random.bytes(style.width * style.height), np.uint8)
    return Image.fromarray(grays[noise.reshape(style.height, style.width)]).convert("RGB")


def _place_glyphs(label: str, font: str, style: CaptchaStyle, random: np.random.Generator) -> list[_Glyph]:
    """Places characters of random size and rotation along a line of a third to two thirds of the width.

    If they do not fit into a small image, they are placed again with a smaller font.
    """
    room, scale = np.array([style.width, style.height]) - 2 * _MARGIN, 1.0
    while True:
        glyphs = _try_to_place_glyphs(label, font, style, scale, random)
        low, high = _find_extent(glyphs)
        if np.all(high - low <= room):
            return glyphs
        scale *= _SHRINK


def _try_to_place_glyphs(
    label: str, font: str, style: CaptchaStyle, scale: float, random: np.random.Generator
) -> list[_Glyph]:
    label_width = random.uniform(_MIN_LABEL_WIDTH * style.width, _MAX_LABEL_WIDTH * style.width)
    natural_width = sum(_open_font(font, 100).getlength(character) for character in label) / 100
    size = float(np.clip(label_width / natural_width * random.uniform(0.75, 1), *_FONT_SIZE)) * scale
    gap = max(0.0, label_width - natural_width * size) / len(label)
    glyphs, x = [], 0.0
    for character in label:
        em = round(size * random.uniform(*_SIZE_FACTOR))
        mask, center = _draw_mask(
            _open_font(font, em), character, random.uniform(-style.max_rotation, style.max_rotation)
        )
        x += mask.width / 2
        glyphs.append(_Glyph(mask, x, center + em * random.uniform(-_MAX_SHIFT, _MAX_SHIFT)))
        x += mask.width / 2 + random.uniform(0, min(2 * gap, 0.5 * em))
    return glyphs


def _draw_mask(font: ImageFont.FreeTypeFont, character: str, rotation: float) -> tuple[Image.Image, float]:
    """Returns the mask of a rotated character, and the distance of its center from the top of the line."""
    left, top, right, bottom = (round(edge) for edge in font.getbbox(character))
    upright = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(upright).text((-left, -top), character, fill=255, font=font)
    rotated = upright.rotate(rotation, Image.Resampling.BICUBIC, expand=True)
    return rotated.crop(rotated.getbbox()), (top + bottom) / 2


def _draw_glyphs(image: Image.Image, random: np.random.Generator, glyphs: Sequence[_Glyph]) -> None:
    """Draws all glyphs at one random position within the margins, each in its own color."""
    (left, top), (right, bottom) = _find_extent(glyphs)
    x = random.uniform(_MARGIN - left, image.width - _MARGIN - right)
    y = random.uniform(_MARGIN - top, image.height - _MARGIN - bottom)
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


def _draw_stroke(pen: ImageDraw.ImageDraw, size: tuple[int, int], random: np.random.Generator) -> None:
    """Draws a line, arc, ellipse or dot of random color and position."""
    kind, width = random.integers(4), int(random.integers(1, 5))
    color = _to_rgb(random.uniform(0, 1), random.uniform(0.3, 1), random.uniform(0.3, 1))
    x, y = random.uniform(0, size[0]), random.uniform(0, size[1])
    if kind == 0:
        end = random.uniform(0, size[0]), random.uniform(0, size[1])
        pen.line([(x, y), end], color, width)
        return
    if kind == 3:
        radius = random.uniform(2, 8)
        pen.ellipse([x - radius, y - radius, x + radius, y + radius], color)
        return
    radius_x, radius_y = random.uniform(15, 180), random.uniform(15, 110)
    box = [x - radius_x, y - radius_y, x + radius_x, y + radius_y]
    if kind == 1:
        start = random.uniform(0, 360)
        pen.arc(box, start, start + random.uniform(60, 240), color, width)
    else:
        pen.ellipse(box, outline=color, width=width)
