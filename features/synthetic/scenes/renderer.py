"""Renders a scene as a JPEG: shapes on a textured background."""

from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw

from features.synthetic.scenes.scene import HEIGHT, WIDTH, Color, Floats, PlacedObject, Scene, compute_outline

_RGB: dict[Color, tuple[int, int, int]] = {
    "red": (205, 30, 38),
    "orange": (244, 133, 24),
    "yellow": (246, 221, 44),
    "green": (34, 142, 60),
    "blue": (32, 82, 196),
    "purple": (126, 46, 152),
    "black": (22, 22, 24),
    "white": (250, 250, 248),
}
_OVERSAMPLING = 4
_QUALITY = 92


def draw_scene(scene: Scene, seed: int) -> bytes:
    """Renders a scene as a JPEG of `WIDTH` × `HEIGHT`. The seed determines the background and the grain."""
    random = np.random.default_rng((seed, scene.number, 1))
    canvas = _render_background(random)
    for placed in scene.objects:
        x, y, width, height = placed.box
        area = canvas[y : y + height, x : x + width]
        mask = _render_mask(placed)[..., None]
        area += mask * (_render_surface(placed, random) - area)
    jpeg = BytesIO()
    pixels = np.rint(canvas.clip(0, 255)).astype(np.uint8)
    Image.fromarray(pixels).save(jpeg, "JPEG", quality=_QUALITY)
    return jpeg.getvalue()


def _render_background(random: np.random.Generator) -> Floats:
    """Returns a muted color with soft blotches, finer mottles and grain, [HEIGHT, WIDTH, 3]."""
    color = random.uniform(105, 185) + random.uniform(-20, 20, 3)
    blotches = _render_noise(random, 6, 8) * 9 + _render_noise(random, 30, 40) * 5
    return color + blotches[..., None] + random.normal(0, 3, (HEIGHT, WIDTH, 1))


def _render_noise(random: np.random.Generator, rows: int, columns: int) -> Floats:
    coarse = Image.fromarray(random.normal(0, 1, (rows, columns)).astype(np.float32))
    return np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float64)


def _render_surface(placed: PlacedObject, random: np.random.Generator) -> Floats:
    """Returns a variation of the color, lit from above, with grain, [height, width, 3]."""
    _, _, width, height = placed.box
    color = np.array(_RGB[placed.scene_object.color]) + random.uniform(-8, 8, 3)
    light = np.linspace(1.06, 0.9, height)[:, None, None]
    return color * light + random.normal(0, 3, (height, width, 1))


def _render_mask(placed: PlacedObject) -> Floats:
    """Returns the fraction of each pixel of the box that the shape covers, [height, width]."""
    _, _, width, height = placed.box
    outline = compute_outline(placed.scene_object.shape, placed.rotation)
    size = (width * _OVERSAMPLING, height * _OVERSAMPLING)
    corners = (outline / np.abs(outline).max(axis=0) + 1) / 2 * (size[0] - 1, size[1] - 1)
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).polygon([(x, y) for x, y in corners.tolist()], fill=255)
    return np.asarray(mask.resize((width, height), Image.Resampling.BOX), np.float64) / 255
