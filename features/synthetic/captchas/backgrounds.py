"""Draws the backgrounds of CAPTCHAs, and reads those of the user."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from features.images.decode import open_image
from features.io.locations import local_path
from schemas.choices import CaptchaBackground
from schemas.errors import RecordError, UsageError

_SPECKLE_GRAY = (110, 235)
_NUM_SPECKLES = (4, 13)  # of 256 pixels
_LIGHT = (190, 256)  # of red, green and blue
_NOISE = (4, 25)  # standard deviation

_Size = tuple[int, int]  # width, height


def draw_background(
    kind: CaptchaBackground, files: tuple[str, ...], size: _Size, random: np.random.Generator
) -> Image.Image:
    """Returns a background in RGB: a part of a random file if there are any, otherwise one of a kind."""
    if files:
        return _crop(_read_image(files[random.integers(len(files))]), size, random)
    return _KINDS[kind](size, random)


def list_backgrounds(directory: str | Path) -> tuple[str, ...]:
    """Returns the files of a directory, sorted by name; UsageError if one is not an image."""
    location = f"--background-dir {directory}"
    root = local_path(directory, "--background-dir")
    if not root.is_dir():
        raise UsageError("the directory does not exist", location=location, hint="Choose one with images.")
    files = sorted(str(path) for path in root.iterdir() if path.is_file())
    if not files:
        raise UsageError("the directory has no files", location=location, hint="Choose one with images.")
    for file in files:
        try:
            open_image(Path(file).read_bytes())
        except RecordError as error:
            raise UsageError(f"not an image: {error.reason}", location=file, hint="Remove the file.") from None
    return tuple(files)


def _draw_speckles(size: _Size, random: np.random.Generator) -> Image.Image:
    """White with gray pixels."""
    width, height = size
    grays = np.full(256, 255, np.uint8)
    speckles = int(random.integers(*_NUM_SPECKLES))
    grays[:speckles] = random.integers(*_SPECKLE_GRAY, speckles)
    noise = np.frombuffer(random.bytes(width * height), np.uint8)
    return Image.fromarray(grays[noise.reshape(height, width)]).convert("RGB")


def _draw_plain(size: _Size, random: np.random.Generator) -> Image.Image:
    """One light color."""
    return Image.new("RGB", size, tuple(_draw_light(random).tolist()))


def _draw_noise(size: _Size, random: np.random.Generator) -> Image.Image:
    """A light color with normally distributed noise."""
    color, deviation = _draw_light(random), random.uniform(*_NOISE)
    noise = random.normal(0, deviation, (size[1], size[0], 1))
    return _to_image(color + noise)


def _draw_gradient(size: _Size, random: np.random.Generator) -> Image.Image:
    """From one light color to another, in a random direction."""
    first, last = _draw_light(random), _draw_light(random)
    angle = random.uniform(0, 2 * np.pi)
    along = np.linspace(0, np.cos(angle), size[0]) + np.linspace(0, np.sin(angle), size[1])[:, None]
    share = (along - along.min()) / np.ptp(along)
    return _to_image(first + (last - first) * share[..., None])


_KINDS: dict[CaptchaBackground, Callable[[_Size, np.random.Generator], Image.Image]] = {
    "speckles": _draw_speckles,
    "plain": _draw_plain,
    "noise": _draw_noise,
    "gradient": _draw_gradient,
}


def _draw_light(random: np.random.Generator) -> NDArray[np.int64]:
    return random.integers(*_LIGHT, 3)


def _to_image(pixels: NDArray[np.floating]) -> Image.Image:
    return Image.fromarray(np.rint(np.clip(pixels, 0, 255)).astype(np.uint8))


@lru_cache(maxsize=32)
def _read_image(file: str) -> Image.Image:
    return open_image(Path(file).read_bytes())


def _crop(image: Image.Image, size: _Size, random: np.random.Generator) -> Image.Image:
    """Returns a random part of the given size; an image that is too small is enlarged."""
    scale = max(1.0, size[0] / image.width, size[1] / image.height)
    width, height = (max(side, round(old * scale)) for side, old in zip(size, image.size, strict=True))
    enlarged = image.resize((width, height)) if (width, height) != image.size else image
    left, top = int(random.integers(width - size[0] + 1)), int(random.integers(height - size[1] + 1))
    return enlarged.crop((left, top, left + size[0], top + size[1])).convert("RGB")
