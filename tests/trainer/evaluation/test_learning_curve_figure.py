"""The figure of a learning curve shows the points, the curve, the target and the interval."""

import pytest

from trainer.evaluation.learning_curve import CurvePoint, estimate_labels
from trainer.evaluation.learning_curve_figure import learning_curve_figure
from trainer.figures.figure_files import encode_figure


def test_the_figure_shows_points_curve_target_and_interval():
    points = [CurvePoint(n, errors, 1000) for n, errors in ((500, 995), (1000, 400), (2000, 230), (4000, 130))]
    estimate = estimate_labels(points, 0.95)
    figure = learning_curve_figure(points, estimate)
    (axes,) = figure.axes
    used, unused = (container.lines[0] for container in axes.containers)
    assert (used.get_xdata().tolist(), unused.get_xdata().tolist()) == ([1000, 2000, 4000], [500])
    assert used.get_ydata().tolist() == pytest.approx([0.4, 0.23, 0.13])
    (interval,) = [line for line in axes.lines if line.get_label() == "95% interval"]
    assert interval.get_xdata().tolist() == [4000 + estimate.low, 4000 + estimate.high]
    assert encode_figure(figure, "png").startswith(b"\x89PNG")


def test_points_without_errors_and_without_an_estimate_are_shown():
    points = [CurvePoint(n, 0, 40) for n in (100, 200, 400)]
    (axes,) = learning_curve_figure(points, estimate_labels(points, 0.99)).axes
    assert len(axes.containers[0].lines[0].get_xdata()) == 3
    assert "95% interval" not in [line.get_label() for line in axes.lines]
