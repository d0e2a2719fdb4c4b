"""The image of a scene shows its objects and does not change."""

import hashlib
from io import BytesIO

import numpy as np
from PIL import Image

from features.synthetic.scenes import renderer
from features.synthetic.scenes.generator import make_scene
from features.synthetic.scenes.renderer import draw_scene
from features.synthetic.scenes.scene import (
    HEIGHT,
    WIDTH,
    Description,
    SceneObject,
)


def test_images_do_not_change_between_releases():
    pixels = np.asarray(Image.open(BytesIO(draw_scene(make_scene(7, 1), 7)))).mean(axis=(0, 1))
    assert make_scene(7, 1).description == Description(
        (
            SceneObject("small", "green", "circle"),
            SceneObject("small", "black", "circle"),
            SceneObject("small", "blue", "star"),
        ),
        "above",
    )
    assert np.allclose(pixels, [161.3, 144.8, 169.9], atol=0.5)


def test_another_seed_gives_other_scenes():
    digests = {hashlib.sha256(draw_scene(make_scene(seed, 1), seed)).digest() for seed in range(10)}
    assert len(digests) == 10


def test_the_image_shows_each_object_in_its_color_and_box():
    for number in range(1, 31):
        scene = make_scene(11, number)
        image = Image.open(BytesIO(draw_scene(scene, 11)))
        assert (image.format, image.size, image.mode) == ("JPEG", (WIDTH, HEIGHT), "RGB")
        pixels = np.asarray(image, float)
        for placed in scene.objects:
            x, y, width, height = placed.box
            area = pixels[y : y + height, x : x + width]
            mask = renderer._render_mask(placed)
            inside = np.median(area[mask == 1], axis=0)
            distance = {color: np.abs(inside - rgb).sum() for color, rgb in renderer._RGB.items()}
            assert min(distance, key=distance.get) == placed.scene_object.color
            assert all(edge.max() > 0 for edge in (mask[0], mask[-1], mask[:, 0], mask[:, -1]))
            assert 0.2 < mask.mean() <= 1
