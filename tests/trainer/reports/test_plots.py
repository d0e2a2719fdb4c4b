"""Figures show the values they are given."""

import numpy as np
import pytest
from PIL import Image

from trainer.figures.figure_files import save_figure
from trainer.reports.plots import confusion_figure, loss_figure, recognizer_figure
from trainer.runs.epoch_metrics import EpochMetrics


def row(epoch, loss, val_loss=None):
    return EpochMetrics(epoch=epoch, loss=loss, val_loss=val_loss, seconds=1, monitored=())


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


def test_the_cider_d_of_the_validation_split_has_a_panel():
    rows = [EpochMetrics(epoch=n, loss=3.0, val_cider_d=n / 10, seconds=1, monitored=()) for n in (1, 2)]
    _, scores = loss_figure(rows).axes
    (line,) = scores.lines
    assert (scores.get_ylabel(), line.get_label()) == ("CIDEr-D", "validation")
    assert line.get_ydata().tolist() == [0.1, 0.2]


def test_rewards_are_shown_with_the_cider_d_of_validation_and_their_loss_is_not_shown():
    values = {"loss": 0.01, "val_loss": 2.5, "reward": 0.4, "baseline": 0.5, "val_cider_d": 0.6}
    losses, scores = loss_figure([EpochMetrics(epoch=1, **values, seconds=1, monitored=())]).axes
    assert [line.get_ydata().tolist() for line in losses.lines] == [[2.5]]
    assert [line.get_ydata().tolist() for line in scores.lines] == [[0.4], [0.5], [0.6]]
    assert [line.get_label() for line in scores.lines] == [
        "train, reward of samples",
        "train, reward of greedy",
        "validation",
    ]


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
