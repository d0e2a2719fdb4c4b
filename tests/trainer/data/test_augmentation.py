import numpy as np
import pytest
import tensorflow as tf

from trainer.config import CaptionerTraining
from trainer.data.augmentation import Augmentation

HEIGHT, WIDTH = 12, 20


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (6, HEIGHT, WIDTH, 3)).astype(np.uint8)


def changed(augmentation, pixels, epoch=0, step=0):
    return augmentation.for_epoch(epoch)(tf.constant(pixels), tf.constant(step, tf.int64)).numpy()


def test_random_values_are_a_function_of_seed_epoch_and_step(pixels):
    augmentation = Augmentation(3, translation=0.2, zoom=0.3, color_jitter=0.3, horizontal_flip=True)
    first = changed(augmentation, pixels, 1, 2)
    assert first.shape == pixels.shape
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, changed(augmentation, pixels, 1, 2))
    others = [
        changed(augmentation, pixels, 1, 3),
        changed(augmentation, pixels, 2, 2),
        changed(Augmentation(4, translation=0.2, zoom=0.3, color_jitter=0.3, horizontal_flip=True), pixels, 1, 2),
    ]
    for other in others:
        assert (other != first).any(axis=(1, 2, 3)).all()


def test_each_image_of_a_batch_has_its_own_random_values(pixels):
    same = np.repeat(pixels[:1], 6, axis=0)
    made = changed(Augmentation(0, color_jitter=0.5), same)
    assert len(np.unique(made.reshape(6, -1), axis=0)) == 6


def test_without_amounts_there_is_no_augmentation(pixels):
    assert Augmentation.from_config(CaptionerTraining()) is None
    asked = CaptionerTraining(extractor="vgg16", augment_zoom=0.2)
    assert Augmentation.from_config(asked) == Augmentation(0, zoom=0.2)


def test_translation_is_limited_and_repeats_edge_pixels():
    across = np.broadcast_to(np.arange(WIDTH, dtype=np.uint8)[:, None] * 10, (200, HEIGHT, WIDTH, 3))
    made = changed(Augmentation(0, translation=0.25), across).astype(int)
    moved = made - across
    assert np.abs(moved).max() <= 0.25 * WIDTH * 10 + 1
    assert np.abs(moved[:, 0, WIDTH // 2]).max() > 0.22 * WIDTH * 10
    assert (moved[:, 0, WIDTH // 2] > 0).any()
    assert (moved[:, 0, WIDTH // 2] < 0).any()
    assert set(made[:, :, 0].ravel()) >= {0}
    assert made.max() == 190


def test_zoom_keeps_the_center():
    spot = np.zeros((100, 31, 31, 3), np.uint8)
    spot[:, 10:21, 10:21] = 255
    made = changed(Augmentation(1, zoom=0.5), spot)
    assert (made[:, 15, 15] == 255).all()
    widths = (made[:, 15, :, 0] > 127).sum(axis=1)
    assert widths.min() in (7, 8)
    assert widths.max() in (15, 16, 17)
    np.testing.assert_allclose(made, made[:, ::-1, ::-1], atol=2)


def test_half_of_the_images_are_flipped_horizontally(pixels):
    many = np.repeat(pixels, 40, axis=0)
    made = changed(Augmentation(0, horizontal_flip=True), many)
    is_same = (made == many).all(axis=(1, 2, 3))
    is_mirrored = (made == many[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (is_same ^ is_mirrored).all()
    assert 0.4 < is_mirrored.mean() < 0.6


def test_color_jitter_changes_colors_and_moves_nothing():
    red, grey = (150, 50, 50), (90, 90, 90)
    plain = np.broadcast_to(np.array([red, grey], np.uint8)[:, None, None], (2, HEIGHT, WIDTH, 3))
    made = changed(Augmentation(5, color_jitter=0.4), np.repeat(plain, 50, axis=0)).astype(int)
    assert (made == made[:, :1, :1]).all()
    reds, greys = made[:50, 0, 0], made[50:, 0, 0]
    assert (reds[:, 0] > reds[:, 1] + 20).all()
    assert (reds[:, 1] == reds[:, 2]).all()
    assert (greys.max(axis=1) == greys.min(axis=1)).all()
    assert greys.min() < 65
    assert greys.max() > 115


def test_channel_permutation_reorders_the_channels(pixels):
    many = np.repeat(pixels[:1], 60, axis=0)
    made = changed(Augmentation(0, channel_permutation=True), many)
    np.testing.assert_array_equal(np.sort(made, axis=3), np.sort(many, axis=3))
    assert len(np.unique(made.reshape(60, -1), axis=0)) == 6


def test_random_erasing_covers_one_bar_of_limited_area():
    white = np.full((200, 40, 80, 3), 255, np.uint8)
    made = changed(Augmentation(2, random_erasing=0.05), white)
    is_covered = (made != 255).any(axis=3)
    shares = is_covered.mean(axis=(1, 2))
    assert shares.max() < 0.06
    assert shares.max() > 0.03
    assert shares.min() < 0.005
    for image, mask in zip(made, is_covered, strict=True):
        assert len(np.unique(image[mask], axis=0)) <= 1
    assert is_covered.any(axis=0).mean() > 0.9


def test_an_additional_augmentation_does_not_change_other_random_values(pixels):
    plain = changed(Augmentation(7, translation=0.2, color_jitter=0.3), pixels)
    with_hue = changed(Augmentation(7, translation=0.2, color_jitter=0.3, channel_permutation=True), pixels)
    np.testing.assert_array_equal(np.sort(with_hue, axis=3), np.sort(plain, axis=3))
