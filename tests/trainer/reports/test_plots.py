import matplotlib
import numpy as np
import pytest
from PIL import Image

from schemas.errors import CaptError, UsageError
from trainer.reports.plots import (
    attention_figure,
    attention_map,
    confusion_figure,
    loss_figure,
    save_figure,
    words_figure,
)
from trainer.training.epoch_metrics import CaptionerMetrics, RecognizerMetrics


def row(epoch, loss, val_loss=None):
    return CaptionerMetrics(epoch=epoch, loss=loss, accuracy=0.5, val_loss=val_loss, seconds=1, captions_per_second=1)


def settings():
    return {name: value for name, value in matplotlib.rcParams.items() if name != "backend"}


def test_the_loss_plot_shows_both_curves():
    (axes,) = loss_figure([row(1, 3.0, 2.5), row(2, 2.0, 2.2)]).axes
    assert [line.get_ydata().tolist() for line in axes.lines] == [[3.0, 2.0], [2.5, 2.2]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["train", "validation"]


def test_without_validation_the_loss_plot_has_one_curve():
    assert len(loss_figure([row(1, 3.0)]).axes[0].lines) == 1


def test_the_plot_of_words_shows_losses_and_words_read_wrong_though_there_are_none(tmp_path):
    shared = {"seconds": 1, "images_per_second": 1}
    rows = [
        RecognizerMetrics(epoch=1, loss=3.0, accuracy=0.5, val_loss=2.5, val_accuracy=0.75, **shared),
        RecognizerMetrics(epoch=2, loss=1.0, accuracy=0.9, val_loss=0.5, val_accuracy=1.0, **shared),
    ]
    losses, wrong = words_figure(rows).axes
    assert [line.get_ydata().tolist() for line in losses.lines] == [[3.0, 1.0], [2.5, 0.5]]
    assert wrong.lines[0].get_ydata().tolist() == pytest.approx([0.5, 0.1])
    assert wrong.lines[1].get_ydata().tolist() == pytest.approx([0.25, 1e-4])
    save_figure(words_figure(rows), tmp_path / "loss.png")


def test_the_confusion_leaves_out_what_was_read_right():
    counts = np.array([[9, 2, 0], [0, 5, 1], [3, 0, 0]])
    axes = confusion_figure(counts, "ab").axes[0]
    shown = axes.images[0].get_array()
    assert shown.filled(0).tolist() == [[0, 2, 0], [0, 0, 1], [3, 0, 0]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b", "none"]


def test_the_attention_figure_has_one_panel_a_word():
    figure = attention_figure(Image.new("RGB", (40, 30)), ["a", "dog", "runs"], np.full((3, 16), 1 / 16))
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in shown] == ["", "a", "dog", "runs"]
    assert shown[1].images[1].get_array().shape == (30, 40)


def test_an_empty_caption_still_has_its_image():
    figure = attention_figure(Image.new("RGB", (40, 30)), [], np.zeros((0, 16)))
    assert len([axes for axes in figure.axes if axes.images]) == 1


def test_the_map_is_bright_where_the_model_looked():
    weights = np.zeros(16, np.float32)
    weights[6] = 1
    shown = attention_map(weights, 80, 40)
    assert shown.shape == (40, 80)
    row, column = np.unravel_index(shown.argmax(), shown.shape)
    assert 10 <= row < 20
    assert 40 <= column < 60


def test_the_map_is_smooth_and_keeps_the_weights_range():
    weights = np.random.default_rng(1).dirichlet(np.ones(64)).astype(np.float32)
    shown = attention_map(weights, 160, 120)
    assert weights.min() <= shown.min() < shown.max() <= weights.max()
    # The grid's own steps would be as large as the range.
    assert max(np.abs(np.diff(shown, axis=axis)).max() for axis in (0, 1)) < 0.1 * np.ptp(shown)


def test_a_map_of_equal_weights_is_even_up_to_the_border():
    np.testing.assert_allclose(attention_map(np.full(49, 1 / 49), 70, 50), 1 / 49, rtol=1e-6)


@pytest.mark.parametrize("places", [4, 49, 196])
def test_a_map_turns_with_its_weights(places):
    grid = np.random.default_rng(2).random((round(places**0.5),) * 2).astype(np.float32)
    np.testing.assert_allclose(
        attention_map(grid[::-1].T.ravel(), 60, 80), attention_map(grid.ravel(), 80, 60)[::-1].T, atol=1e-6
    )


def test_places_that_are_no_square_grid_are_refused():
    with pytest.raises(CaptError, match="12 places are no square grid"):
        attention_map(np.zeros(12), 10, 10)


def test_a_word_with_a_dollar_sign_is_drawn_as_it_is(tmp_path):
    figure = attention_figure(Image.new("RGB", (40, 30)), ["$\\frac", "$"], np.full((2, 16), 1 / 16))
    save_figure(figure, tmp_path / "out.png")


def test_a_figure_is_saved_in_the_format_of_its_suffix_and_leaves_matplotlib_as_it_was(tmp_path):
    before = settings()
    for suffix in ("png", "svg", "jpg"):
        save_figure(loss_figure([row(1, 3.0)]), tmp_path / "deep" / f"loss.{suffix}")
    assert Image.open(tmp_path / "deep" / "loss.png").size[0] > 300
    assert b"<svg" in (tmp_path / "deep" / "loss.svg").read_bytes()
    assert settings() == before
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["loss.jpg", "loss.png", "loss.svg"]


def test_a_suffix_that_is_no_picture_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"no picture can be written as \.docx .*use \.png"):
        save_figure(loss_figure([row(1, 3.0)]), tmp_path / "loss.docx")
