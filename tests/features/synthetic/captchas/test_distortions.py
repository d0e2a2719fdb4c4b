"""Lines become thicker and thinner without vanishing; shear and waves move pixels by known amounts."""

import numpy as np
from PIL import Image, ImageDraw

from features.synthetic.captchas.distortions import change_weight, shear_mask, warp_image


def make_mask(lines):
    """Returns a mask of horizontal lines, given by their first row and thickness."""
    mask = Image.new("L", (60, 60))
    for top, thickness in lines:
        ImageDraw.Draw(mask).rectangle([10, top, 49, top + thickness - 1], 255)
    return mask


def measure_lines(mask):
    """Returns the numbers of rows with ink in the middle column, line by line."""
    inked = np.asarray(mask)[:, 30] > 127
    edges = np.flatnonzero(np.diff(np.concatenate([[0], inked, [0]])))
    return (edges[1::2] - edges[::2]).tolist()


def test_lines_become_thicker_or_thinner_by_two_pixels_per_step():
    mask = make_mask([(10, 5), (30, 9)])
    assert measure_lines(change_weight(mask, 0)) == [5, 9]
    assert measure_lines(change_weight(mask, 2)) == [9, 13]
    assert measure_lines(change_weight(mask, -1)) == [3, 7]


def test_a_line_that_is_too_thin_keeps_its_middle():
    mask = make_mask([(10, 1), (20, 2), (30, 9)])
    assert measure_lines(change_weight(mask, -3)) == [1, 2, 3]
    assert all(1 <= rows <= 2 for rows in measure_lines(change_weight(mask, -10)))
    assert len(measure_lines(change_weight(mask, -10))) == 3


def test_shear_moves_the_top_to_the_right_and_keeps_the_bottom():
    mask = Image.new("L", (20, 40))
    ImageDraw.Draw(mask).rectangle([8, 0, 11, 39], 255)
    for degrees, first, last in ((45, 48, 9), (-45, 9, 48)):
        columns = np.asarray(shear_mask(mask, degrees)).astype(float)
        centers = [(row * np.arange(len(row))).sum() / row.sum() for row in columns[[0, -1]]]
        assert np.allclose(centers, (first, last), atol=2)


def test_waves_move_pixels_by_at_most_the_given_distance():
    image = Image.new("RGB", (80, 40), "white")
    ImageDraw.Draw(image).rectangle([38, 0, 41, 39], "black")
    moved = set()
    for seed in range(20):
        warped = np.asarray(warp_image(image, 6, np.random.default_rng(seed)))
        assert warped.shape == (40, 80, 3)
        moved |= set(np.flatnonzero((warped[..., 0] < 100).any(axis=0)).tolist())
    assert min(moved) >= 38 - 6
    assert max(moved) <= 41 + 6
    assert min(moved) < 36
    assert max(moved) > 43
