import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from features.images.resize import Resizer
from schemas.errors import CaptError
from trainer.evaluation.image_regions import Grid, blank_region


@given(st.integers(2, 40), st.integers(0, 2**32 - 1))
def test_another_region_of_the_same_size_never_overlaps(side, seed):
    grid, generator = Grid(side), np.random.default_rng(seed)
    region = grid.find_most_attended(generator.random(side * side))
    other = grid.draw_other(region, generator)
    taken = np.zeros((side, side), int)
    for row, column in (region, other):
        taken[row : row + grid.region_side, column : column + grid.region_side] += 1
    assert taken.sum() == 2 * grid.region_side**2
    assert taken.max() == 1


@pytest.mark.parametrize(("locations", "side", "region"), [(49, 7, 2), (64, 8, 3), (4, 2, 1), (196, 14, 5), (9, 3, 1)])
def test_a_region_has_a_third_of_the_side(locations, side, region):
    grid = Grid.from_locations(locations)
    assert (grid.side, grid.region_side) == (side, region)


@pytest.mark.parametrize("locations", [1, 2, 50, 197])
def test_locations_that_form_no_grid_are_refused(locations):
    with pytest.raises(CaptError, match="do not form a square grid"):
        Grid.from_locations(locations)


def test_the_most_attended_region_has_the_greatest_sum():
    weights = np.zeros((8, 8))
    weights[5:8, 2:5] = 0.1
    weights[0, 7] = 0.5
    assert Grid(8).find_most_attended(weights.ravel()) == (5, 2)


def blanked_box(image, resizer, grid, region):
    before, after = np.asarray(image), np.asarray(blank_region(image, resizer, grid, region))
    rows, columns = np.nonzero((before != after).any(axis=2))
    return rows.min(), rows.max() + 1, columns.min(), columns.max() + 1


@pytest.fixture
def noise():
    pixels = np.random.default_rng(0).integers(0, 100, (80, 160, 3)).astype(np.uint8)
    pixels[:, ::2] += 120  # no pixel has the mean color
    return Image.fromarray(pixels)


def test_a_region_covers_the_same_part_of_a_stretched_image(noise):
    assert blanked_box(noise, Resizer(32, 32), Grid(4), (1, 2)) == (20, 40, 80, 120)


def test_a_region_lies_within_the_center_that_a_crop_shows(noise):
    # The crop shows columns 40 to 120.
    assert blanked_box(noise, Resizer(32, 32, mode="crop"), Grid(4), (0, 0)) == (0, 20, 40, 60)


def test_a_region_in_the_padding_changes_nothing(noise):
    # The image covers the rows 8 to 24 of 32.
    resizer = Resizer(32, 32, mode="pad")
    assert blank_region(noise, resizer, Grid(4), (0, 1)).tobytes() == noise.tobytes()
    assert blanked_box(noise, resizer, Grid(4), (1, 0)) == (0, 40, 0, 40)


def test_a_region_has_the_mean_color_of_the_image(noise):
    blanked = np.asarray(blank_region(noise, Resizer(32, 32), Grid(4), (3, 3)))
    assert (blanked[79, 159] == np.asarray(noise).mean(axis=(0, 1)).round()).all()
