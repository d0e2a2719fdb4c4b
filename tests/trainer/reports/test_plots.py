"""Figures show the values they are given."""

from pathlib import Path

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
    recognizer_figure,
    save_figure,
)
from trainer.runs.epoch_metrics import EpochMetrics


def row(epoch, loss, val_loss=None):
    return EpochMetrics(epoch=epoch, loss=loss, val_loss=val_loss, seconds=1, monitored=())


def matplotlib_settings():
    return {name: value for name, value in matplotlib.rcParams.items() if name != "backend"}


def test_the_loss_figure_shows_both_curves_by_epoch():
    (axes,) = loss_figure([row(1, 3.0, 2.5), row(2, 2.0, 2.2)], "nats").axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "nats")
    assert [line.get_xdata().tolist() for line in axes.lines] == [[1, 2], [1, 2]]
    assert [line.get_ydata().tolist() for line in axes.lines] == [[3.0, 2.0], [2.5, 2.2]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["train", "validation"]


def test_without_validation_the_loss_figure_has_one_curve():
    (line,) = loss_figure([row(1, 3.0)]).axes[0].lines
    assert (line.get_label(), line.get_ydata().tolist()) == ("train", [3.0])


def test_next_word_accuracies_are_shown_beside_the_losses():
    shared = {"seconds": 1, "monitored": ()}
    rows = [
        EpochMetrics(epoch=1, loss=3.0, token_accuracy=0.3, val_loss=2.5, val_token_accuracy=0.4, **shared),
        EpochMetrics(epoch=2, loss=2.0, token_accuracy=0.5, val_loss=2.2, val_token_accuracy=0.6, **shared),
    ]
    losses, accuracies = loss_figure(rows).axes
    assert [line.get_ydata().tolist() for line in losses.lines] == [[3.0, 2.0], [2.5, 2.2]]
    assert [line.get_ydata().tolist() for line in accuracies.lines] == [[0.3, 0.5], [0.4, 0.6]]
    assert accuracies.get_ylabel() == "next-word accuracy"


@pytest.mark.parametrize(("figure", "panels"), [(loss_figure, 2), (recognizer_figure, 1)])
def test_axes_begin_at_zero_where_asked(figure, panels):
    rows = [
        EpochMetrics(epoch=n, loss=3.0 - n, token_accuracy=0.5, exact_match=0.5, seconds=1, monitored=())
        for n in (0, 1)
    ]
    assert [axes.get_ylim()[0] for axes in figure(rows, from_zero=True).axes[:panels]] == [0.0] * panels
    assert all(axes.get_ylim()[0] > 0 for axes in figure(rows).axes)


def test_the_recognizer_figure_shows_losses_and_error_rates_even_without_errors(tmp_path):
    shared = {"seconds": 1, "monitored": ()}
    rows = [
        EpochMetrics(epoch=1, loss=3.0, exact_match=0.5, val_loss=2.5, val_exact_match=0.75, **shared),
        EpochMetrics(epoch=2, loss=1.0, exact_match=0.9, val_loss=0.5, val_exact_match=1.0, **shared),
    ]
    losses, wrong = recognizer_figure(rows).axes
    assert [line.get_ydata().tolist() for line in losses.lines] == [[3.0, 1.0], [2.5, 0.5]]
    assert wrong.lines[0].get_ydata().tolist() == pytest.approx([0.5, 0.1])
    assert wrong.lines[1].get_ydata().tolist() == pytest.approx([0.25, 1e-4])
    assert wrong.get_yscale() == "log"
    assert [wrong.yaxis.get_major_formatter()(rate) for rate in (0.5, 0.01)] == ["50%", "1%"]
    save_figure(recognizer_figure(rows), tmp_path / "loss.png")
    assert Image.open(tmp_path / "loss.png").size == (1210, 440)


def test_the_confusion_matrix_leaves_out_correct_characters():
    counts = np.array([[9, 2, 0], [0, 5, 1], [3, 0, 0]])
    axes = confusion_figure(counts, "ab").axes[0]
    shown = axes.images[0].get_array()
    assert shown.filled(0).tolist() == [[0, 2, 0], [0, 0, 1], [3, 0, 0]]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [label.get_text() for label in labels] == ["a", "b", "none"]


def test_the_attention_figure_has_one_panel_per_word():
    image = Image.new("RGB", (40, 30), (200, 30, 90))
    attention = np.random.default_rng(0).dirichlet(np.ones(16), 3).astype(np.float32)
    figure = attention_figure(image, ["a", "dog", "runs"], attention)
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in shown] == ["", "a", "dog", "runs"]
    for axes in shown:
        np.testing.assert_array_equal(axes.images[0].get_array(), np.asarray(image))
    for axes, weights in zip(shown[1:], attention, strict=True):
        np.testing.assert_array_equal(axes.images[1].get_array(), attention_map(weights, 40, 30))


def test_the_figure_of_an_empty_caption_has_the_image():
    figure = attention_figure(Image.new("RGB", (40, 30)), [], np.zeros((0, 16)))
    assert len([axes for axes in figure.axes if axes.images]) == 1


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


def test_locations_that_do_not_form_a_square_grid_are_refused():
    with pytest.raises(CaptError, match="12 spatial locations"):
        attention_map(np.zeros(12), 10, 10)


def test_a_dollar_sign_does_not_begin_a_formula(tmp_path):
    figure = attention_figure(Image.new("RGB", (40, 30)), ["$\\frac", "$"], np.full((2, 16), 1 / 16))
    save_figure(figure, tmp_path / "out.png")  # an invalid formula would raise an error
    assert [axes.get_title() for axes in figure.axes[1:]] == [r"\$\frac", r"\$"]


def test_a_figure_is_saved_in_the_format_of_its_suffix_and_changes_no_setting(tmp_path: Path) -> None:
    before = matplotlib_settings()
    for suffix in ("png", "svg", "jpg"):
        save_figure(loss_figure([row(1, 3.0)]), tmp_path / "deep" / f"loss.{suffix}")
    assert Image.open(tmp_path / "deep" / "loss.png").size == (660, 440)
    assert b"<svg" in (tmp_path / "deep" / "loss.svg").read_bytes()
    assert matplotlib_settings() == before
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["loss.jpg", "loss.png", "loss.svg"]


def test_an_unknown_suffix_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"\.docx"):
        save_figure(loss_figure([row(1, 3.0)]), tmp_path / "loss.docx")
