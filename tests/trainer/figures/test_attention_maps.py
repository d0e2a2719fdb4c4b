"""Attention maps are drawn from 0 over the image that the model received."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import Bbox
from PIL import Image, ImageSequence

from schemas.errors import CaptError, UsageError
from trainer.figures.attention_maps import AttentionMaps, attention_map

WORDS = ["a", "dog", "runs", "<end>"]
IMAGE = Image.new("RGB", (40, 30), (200, 30, 90))
WEIGHTS = np.random.default_rng(0).dirichlet(np.ones(16), 4).astype(np.float32)
HEADS = np.random.default_rng(1).dirichlet(np.ones(16), (2, 3, 4)).astype(np.float32)


def maps(**changes):
    return AttentionMaps(**({"image": IMAGE, "title": "a dog runs", "words": WORDS, "weights": WEIGHTS} | changes))


def panels(figure):
    return [axes for axes in figure.axes if axes.images]


def color_scales(figure):
    return [axes.images[1].get_clim() for axes in panels(figure) if len(axes.images) > 1]


def test_the_figure_has_the_caption_as_title_and_one_panel_per_word():
    figure = maps().figure()
    assert figure.get_suptitle() == "a dog runs"
    image, *words = panels(figure)
    assert [axes.get_title() for axes in (image, *words)] == ["", *WORDS]
    for axes in (image, *words):
        np.testing.assert_array_equal(axes.images[0].get_array(), np.asarray(IMAGE))
    for axes, weights in zip(words, WEIGHTS, strict=True):
        np.testing.assert_array_equal(axes.images[1].get_array(), attention_map(weights, 40, 30))


def test_a_map_is_drawn_from_0_to_its_maximum():
    expected = [(0, pytest.approx(attention_map(weights, 40, 30).max())) for weights in WEIGHTS]
    assert color_scales(maps().figure()) == expected


def test_a_map_of_equal_weights_has_one_color():
    axes = panels(maps(words=["a"], weights=np.full((1, 49), 1 / 49) + 1e-9 * np.arange(49)).figure())[1]
    drawn, (lowest, highest) = axes.images[1].get_array(), axes.images[1].get_clim()
    assert np.ptp((drawn - lowest) / (highest - lowest)) < 1e-3


def test_a_map_of_zeros_is_drawn():
    assert color_scales(maps(words=["a"], weights=np.zeros((1, 16))).figure()) == [(0, 1)]


@pytest.mark.parametrize("style", ["smooth", "grid"])
@pytest.mark.parametrize("weights", [WEIGHTS, HEADS])
def test_with_the_scale_of_the_caption_all_maps_share_one_maximum(style, weights):
    figure = maps(weights=weights, style=style, scale="caption").figure()
    scales = color_scales(figure)
    assert len(set(scales)) == 1
    assert scales[0] == (0, max(axes.images[1].get_array().max() for axes in panels(figure) if axes.images[1:]))


def test_a_grid_shows_the_weights_themselves_over_the_whole_image():
    figure = maps(style="grid").figure()
    for axes, weights in zip(panels(figure)[1:], WEIGHTS, strict=True):
        image, drawn = axes.images
        np.testing.assert_array_equal(drawn.get_array(), weights.reshape(4, 4))
        assert drawn.get_extent() == image.get_extent()
        assert drawn.get_interpolation() == "nearest"


def test_layers_and_heads_have_one_row_each():
    rows = np.reshape(np.array(panels(maps(weights=HEADS, style="grid").figure()), object), (6, 5))
    assert [row[0].get_title() for row in rows[:4]] == [
        "layer 1, head 1", "layer 1, head 2", "layer 1, head 3", "layer 2, head 1"
    ]  # fmt: skip
    for row, weights in zip(rows, HEADS.reshape(6, 4, 4, 4), strict=True):
        assert [axes.get_title() for axes in row[1:]] == WORDS
        for axes, grid in zip(row[1:], weights, strict=True):
            np.testing.assert_array_equal(axes.images[1].get_array(), grid)


@pytest.mark.parametrize(("weights", "images"), [(np.zeros((0, 16)), 1), (np.zeros((2, 3, 0, 16)), 6)])
def test_the_figure_of_an_empty_caption_has_the_image(weights, images):
    assert len(panels(maps(title="", words=[], weights=weights).figure())) == images


def test_a_long_caption_is_wrapped():
    title = "a dog runs over the grass beside the sand and the water of a lake " * 2
    assert maps(title=title).figure().get_suptitle().split() == title.split()
    assert "\n" in maps(title=title).figure().get_suptitle()


@pytest.mark.parametrize("weights", [WEIGHTS, HEADS])
@pytest.mark.parametrize("size", [(40, 30), (30, 90), (900, 60)])
def test_caption_words_and_panels_do_not_overlap(size, weights):
    figure = maps(image=IMAGE.resize(size), title="a dog runs over the sand " * 8, weights=weights).figure()
    FigureCanvasAgg(figure).draw()
    boxes = [figure.texts[0].get_window_extent(), *(axes.get_tightbbox() for axes in panels(figure))]
    assert all(Bbox.intersection(one, other) is None for one, other in combinations(boxes, 2))
    assert all(figure.bbox.fully_containsx(box.x0) and figure.bbox.fully_containsy(box.y0) for box in boxes)
    assert all(figure.bbox.fully_containsx(box.x1) and figure.bbox.fully_containsy(box.y1) for box in boxes)


def test_locations_that_do_not_form_a_square_grid_are_refused():
    with pytest.raises(CaptError, match="12 spatial locations"):
        maps(weights=np.zeros((4, 12)))


@pytest.mark.parametrize("name", ["style", "scale"])
def test_an_unknown_style_or_scale_is_wrong_usage(name):
    with pytest.raises(UsageError, match=f"{name}: expected .* or .*, got 'dots'"):
        maps(**{name: "dots"})


def test_a_dollar_sign_does_not_begin_a_formula(tmp_path):
    made = maps(title="$\\frac $", words=["$\\frac", "$"], weights=np.full((2, 16), 1 / 16))
    made.save(tmp_path / "out.png")  # an invalid formula would raise an error
    made.save(tmp_path / "out.gif")
    assert [axes.get_title() for axes in made.figure().axes[1:3]] == [r"\$\frac", r"\$"]


@pytest.mark.parametrize("weights", [WEIGHTS, HEADS])
@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_an_animation_has_one_frame_per_word_and_repeats(tmp_path, suffix, weights):
    maps(weights=weights).save(tmp_path / f"maps.{suffix}")
    with Image.open(tmp_path / f"maps.{suffix}") as opened:
        assert (opened.format, opened.n_frames, opened.info["loop"]) == (suffix.upper(), 4, 0)
        frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(opened)]
    assert all((one != other).any() for one, other in pairwise(frames))


@pytest.mark.parametrize("shape", [(0, 16), (2, 3, 0, 16)])
def test_the_animation_of_an_empty_caption_has_the_image(tmp_path, shape):
    maps(title="", words=[], weights=np.zeros(shape)).save(tmp_path / "maps.gif")
    with Image.open(tmp_path / "maps.gif") as opened:
        assert opened.n_frames == 1


def test_a_suffix_that_is_not_an_image_format_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"\.docx"):
        maps().save(tmp_path / "maps.docx")


def test_the_map_is_brightest_at_the_attended_location():
    weights = np.zeros(16, np.float32)
    weights[6] = 1
    shown = attention_map(weights, 80, 40)
    assert shown.shape == (40, 80)
    row, column = np.unravel_index(shown.argmax(), shown.shape)
    assert 10 <= row < 20
    assert 40 <= column < 60


def test_the_map_is_smooth_and_in_the_range_of_the_weights():
    weights = np.random.default_rng(1).dirichlet(np.ones(64)).astype(np.float32)
    shown = attention_map(weights, 160, 120)
    assert weights.min() <= shown.min() < shown.max() <= weights.max()
    # Without smoothing, steps would be as large as the range.
    assert max(np.abs(np.diff(shown, axis=axis)).max() for axis in (0, 1)) < 0.1 * np.ptp(shown)


def test_a_map_of_equal_weights_is_constant_up_to_the_border():
    np.testing.assert_allclose(attention_map(np.full(49, 1 / 49), 70, 50), 1 / 49, rtol=1e-6)


@pytest.mark.parametrize("locations", [4, 49, 196])
def test_a_map_rotates_with_its_weights(locations):
    grid = np.random.default_rng(2).random((round(locations**0.5),) * 2).astype(np.float32)
    np.testing.assert_allclose(
        attention_map(grid[::-1].T.ravel(), 60, 80), attention_map(grid.ravel(), 80, 60)[::-1].T, atol=1e-6
    )
