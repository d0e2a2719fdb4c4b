"""Backgrounds are light, and depend only on the random generator; those of a directory are parts of its images."""

import numpy as np
import pytest
from PIL import Image

from features.synthetic.captchas.backgrounds import draw_background, list_backgrounds
from schemas.errors import UsageError

SIZE = 60, 40


def draw(kind="speckles", files=(), seed=1, size=SIZE):
    return np.asarray(draw_background(kind, files, size, np.random.default_rng(seed)))


def test_the_default_background_is_white_with_gray_speckles():
    background = draw(size=(600, 320))
    speckled = (background < 255).any(axis=2)
    assert 0.005 < speckled.mean() < 0.06
    assert np.array_equal(background[..., 0], background[..., 2])


@pytest.mark.parametrize("kind", ["speckles", "plain", "noise", "gradient"])
def test_every_background_is_light_and_a_function_of_the_generator(kind):
    background = draw(kind)
    assert background.shape == (40, 60, 3)
    assert background.mean() > 180
    assert np.array_equal(background, draw(kind))
    assert not np.array_equal(background, draw(kind, seed=2))


def test_plain_noise_and_gradient_are_what_they_are_called():
    assert len(np.unique(draw("plain").reshape(-1, 3), axis=0)) == 1
    noise, gradient = draw("noise").astype(int), draw("gradient").astype(int)
    assert np.abs(np.diff(noise, axis=1)).mean() > 2
    assert np.abs(np.diff(gradient, axis=1)).max() <= 4
    assert np.ptp(gradient, axis=(0, 1)).max() > 4


def test_images_of_a_directory_are_cropped_and_small_ones_enlarged(tmp_path):
    for name, size in (("a.png", (200, 100)), ("b.jpg", (10, 80))):
        Image.new("RGB", size, "teal").save(tmp_path / name)
    files = list_backgrounds(tmp_path)
    assert [file.rsplit("/", 1)[1] for file in files] == ["a.png", "b.jpg"]
    for seed in range(6):
        assert np.abs(draw(files=files, seed=seed).astype(int) - (0, 128, 128)).max() < 4


def test_a_directory_without_images_is_an_error_with_its_path(tmp_path):
    with pytest.raises(UsageError, match=r"--background-dir .*the directory has no files"):
        list_backgrounds(tmp_path)
    (tmp_path / "notes.txt").write_text("not an image")
    with pytest.raises(UsageError, match=r"notes\.txt: not an image"):
        list_backgrounds(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        list_backgrounds(tmp_path / "none")
