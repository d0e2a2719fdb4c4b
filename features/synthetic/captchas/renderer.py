"""Pictures: a word as a CAPTCHA, its letters tilted and coloured among lines, arcs, ellipses and dots.

ground with speckle → half of the strokes → letters → the other strokes → PNG
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from features.synthetic.captchas.fonts import open_font

WIDTH, HEIGHT = 600, 320

_MARGIN = 8  # pixels between letters and the border
_SPREAD = (WIDTH / 3, WIDTH * 2 / 3)  # of a word, in pixels
_SIZES = (56, 108)  # of letters: pixels an em
_SIZE_VARIES = (0.85, 1.2)
_TILT = 24  # degrees, either way
_LIFT = 0.12  # of an em, either way
_STROKES = (8, 20)
_GREYS = (110, 235)
_SPECKLES = (4, 13)  # of 256 pixels

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class CaptchaStyle:
    """What the CAPTCHAs of a set are made of.

    Args:
        words: tuple of str. One is shown in each, drawn evenly.
        fonts: tuple of str. Font files; each picture takes one.
    """

    words: tuple[str, ...]
    fonts: tuple[str, ...]


@dataclass(frozen=True)
class _Letter:
    """A letter's mask, mode L, and where its centre is from the word's start, in pixels."""

    mask: Image.Image
    x: float
    y: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        width, height = self.mask.size
        return self.x - width / 2, self.y - height / 2, self.x + width / 2, self.y + height / 2


def draw_captcha(seed: int, number: int, look: CaptchaStyle) -> tuple[Image.Image, str]:
    """CAPTCHA `number` of a seed: the picture, RGB of `WIDTH` × `HEIGHT`, and its word; a function of its arguments."""
    random = np.random.default_rng((seed, number))
    word = look.words[random.integers(len(look.words))]
    font = look.fonts[random.integers(len(look.fonts))]
    picture = _ground(random)
    pen = ImageDraw.Draw(picture)
    strokes = int(random.integers(_STROKES[0], _STROKES[1] + 1))
    over = int(random.binomial(strokes, 0.5))
    for _ in range(strokes - over):
        _stroke(pen, random)
    _write(picture, random, _letters(word, font, random))
    for _ in range(over):
        _stroke(pen, random)
    return picture, word


def encode_png(picture: Image.Image) -> bytes:
    """The picture as a PNG file."""
    file = BytesIO()
    picture.save(file, "PNG", compress_level=1)
    return file.getvalue()


def _ground(random: np.random.Generator) -> Image.Image:
    """White with grey speckle."""
    greys = np.full(256, 255, np.uint8)
    speckles = int(random.integers(*_SPECKLES))
    greys[:speckles] = random.integers(*_GREYS, speckles)
    noise = np.frombuffer(random.bytes(WIDTH * HEIGHT), np.uint8).reshape(HEIGHT, WIDTH)
    return Image.fromarray(greys[noise]).convert("RGB")


def _letters(word: str, font: str, random: np.random.Generator) -> list[_Letter]:
    """The word's letters along a line, each of its own size and tilt, over a third to two thirds of the width."""
    spread = random.uniform(*_SPREAD)
    natural = sum(_font(font, 100).getlength(letter) for letter in word) / 100
    size = float(np.clip(spread / natural * random.uniform(0.75, 1), *_SIZES))
    gap = max(0.0, spread - natural * size) / len(word)
    letters, x = [], 0.0
    for letter in word:
        em = round(size * random.uniform(*_SIZE_VARIES))
        mask, middle = _mask(_font(font, em), letter, random.uniform(-_TILT, _TILT))
        x += mask.width / 2
        letters.append(_Letter(mask, x, middle + em * random.uniform(-_LIFT, _LIFT)))
        x += mask.width / 2 + random.uniform(0, min(2 * gap, 0.5 * em))
    return letters


def _mask(font: ImageFont.FreeTypeFont, letter: str, tilt: float) -> tuple[Image.Image, float]:
    """A letter's tilted mask, and how far its middle is below the line's top, in pixels."""
    left, top, right, bottom = (round(edge) for edge in font.getbbox(letter))
    upright = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(upright).text((-left, -top), letter, fill=255, font=font)
    tilted = upright.rotate(tilt, Image.Resampling.BICUBIC, expand=True)
    return tilted.crop(tilted.getbbox()), (top + bottom) / 2


def _write(picture: Image.Image, random: np.random.Generator, letters: Sequence[_Letter]) -> None:
    """Put letters somewhere on the picture, whole, each in a colour of its own."""
    boxes = np.array([letter.box for letter in letters])
    left, top = boxes[:, :2].min(axis=0)
    right, bottom = boxes[:, 2:].max(axis=0)
    x = random.uniform(_MARGIN - left, WIDTH - _MARGIN - right)
    y = random.uniform(_MARGIN - top, HEIGHT - _MARGIN - bottom)
    for letter, (left, top) in zip(letters, boxes[:, :2] + (x, y), strict=True):
        picture.paste(_ink(random), (round(left), round(top)), letter.mask)


def _ink(random: np.random.Generator) -> Colour:
    """A colour dark enough to read on white."""
    hue, saturation, value = random.uniform(0, 1), random.uniform(0.4, 1), random.uniform(0.25, 0.85)
    return _rgb(hue, saturation, value)


def _paint(random: np.random.Generator) -> Colour:
    """Any colour that is seen on white."""
    return _rgb(random.uniform(0, 1), random.uniform(0.3, 1), random.uniform(0.3, 1))


def _rgb(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _stroke(pen: ImageDraw.ImageDraw, random: np.random.Generator) -> None:
    """A line, arc, ellipse or dot anywhere, in any colour."""
    kind, width = random.integers(4), int(random.integers(1, 5))
    color = _paint(random)
    x, y = random.uniform(0, WIDTH), random.uniform(0, HEIGHT)
    if kind == 0:
        end = random.uniform(0, WIDTH), random.uniform(0, HEIGHT)
        pen.line([(x, y), end], color, width)
        return
    if kind == 3:
        radius = random.uniform(2, 8)
        pen.ellipse([x - radius, y - radius, x + radius, y + radius], color)
        return
    across, down = random.uniform(15, 180), random.uniform(15, 110)
    box = [x - across, y - down, x + across, y + down]
    if kind == 1:
        start = random.uniform(0, 360)
        pen.arc(box, start, start + random.uniform(60, 240), color, width)
    else:
        pen.ellipse(box, outline=color, width=width)


@lru_cache(maxsize=1024)
def _font(file: str, size: int) -> ImageFont.FreeTypeFont:
    return open_font(file, size)
