"""Pictures: a scene as a JPEG, its shapes painted on a textured ground."""

from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw

from features.synthetic.scenes.outlines import Floats, outline
from features.synthetic.scenes.scene import HEIGHT, WIDTH, Color, PlacedObject, Scene

_PAINT: dict[Color, tuple[int, int, int]] = {
    "red": (205, 30, 38),
    "orange": (244, 133, 24),
    "yellow": (246, 221, 44),
    "green": (34, 142, 60),
    "blue": (32, 82, 196),
    "purple": (126, 46, 152),
    "black": (22, 22, 24),
    "white": (250, 250, 248),
}
_FINE = 4  # outlines are drawn this many times larger and averaged, so that edges are smooth
_QUALITY = 92


def draw_scene(scene: Scene, seed: int) -> bytes:
    """The scene's picture, a JPEG of `WIDTH` × `HEIGHT`; the ground and the paint's grain come from the seed."""
    random = np.random.default_rng((seed, scene.number, 1))
    canvas = _ground(random)
    for drawn in scene.objects:
        x, y, width, height = drawn.box
        area = canvas[y : y + height, x : x + width]
        cover = _cover(drawn)[..., None]
        area += cover * (_paint(drawn, random) - area)
    jpeg = BytesIO()
    pixels = np.rint(canvas.clip(0, 255)).astype(np.uint8)
    Image.fromarray(pixels).save(jpeg, "JPEG", quality=_QUALITY)
    return jpeg.getvalue()


def _ground(random: np.random.Generator) -> Floats:
    """A muted colour with soft blotches, finer mottles and grain, so that a network sees no flat field."""
    color = random.uniform(105, 185) + random.uniform(-20, 20, 3)
    blotches = _noise(random, 6, 8) * 9 + _noise(random, 30, 40) * 5
    return color + blotches[..., None] + random.normal(0, 3, (HEIGHT, WIDTH, 1))


def _noise(random: np.random.Generator, rows: int, columns: int) -> Floats:
    coarse = Image.fromarray(random.normal(0, 1, (rows, columns)).astype(np.float32))
    return np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float64)


def _paint(drawn: PlacedObject, random: np.random.Generator) -> Floats:
    """The colour, a little off its name's, lit from above, with grain: float array [height, width, 3]."""
    _, _, width, height = drawn.box
    color = np.array(_PAINT[drawn.thing.color]) + random.uniform(-8, 8, 3)
    light = np.linspace(1.06, 0.9, height)[:, None, None]
    return color * light + random.normal(0, 3, (height, width, 1))


def _cover(drawn: PlacedObject) -> Floats:
    """How much of each pixel of the box the shape covers: float array [height, width] in 0…1."""
    _, _, width, height = drawn.box
    shape = outline(drawn.thing.shape, drawn.turn)
    corners = (shape / np.abs(shape).max(axis=0) + 1) / 2 * (width * _FINE - 1, height * _FINE - 1)
    mask = Image.new("L", (width * _FINE, height * _FINE))
    ImageDraw.Draw(mask).polygon([(x, y) for x, y in corners.tolist()], fill=255)
    return np.asarray(mask.resize((width, height), Image.Resampling.BOX), np.float64) / 255
