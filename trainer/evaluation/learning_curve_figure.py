"""Plots a learning curve: the error rate by the number of train labels."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, StrMethodFormatter

from trainer.evaluation.learning_curve import CurvePoint, LabelEstimate
from trainer.figures.figure_files import InlineFigure

_MIN_ERROR_RATE = 1e-4  # a logarithmic axis cannot show 0
_EXTRAPOLATED = 10  # times the largest size, if there is no estimate


def learning_curve_figure(points: Sequence[CurvePoint], estimate: LabelEstimate) -> Figure:
    """Plots the points with their 95% intervals, the fitted curve, the target, and the interval of the estimate."""
    figure = InlineFigure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="labels of the train split", ylabel="wrong labels", xscale="log", yscale="log")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    for is_used, label in ((True, "trained"), (False, "trained, not in the fit")):
        chosen = [point for point in points if point.is_used == is_used]
        if chosen:
            rates = np.array([max(1 - point.exact_match, _MIN_ERROR_RATE) for point in chosen])
            ends = np.array([[1 - point.interval[1], 1 - point.interval[0]] for point in chosen]).T
            bars = np.abs(np.maximum(ends, _MIN_ERROR_RATE) - rates)
            sizes = [point.labels for point in chosen]
            axes.errorbar(sizes, rates, bars, fmt="o" if is_used else "x", capsize=3, label=label)
    last = max(point.labels for point in points)
    if estimate.curve:
        end = last + estimate.high if estimate.high is not None else last * _EXTRAPOLATED
        first = min(point.labels for point in points)
        for start, stop, style in ((first, last, "-"), (last, end, "--")):
            grid = np.geomspace(float(start), float(stop), 100)
            axes.plot(grid, estimate.curve.error_rate(grid), style, color="gray")
    axes.axhline(1 - estimate.target, color="green", linestyle=":", label=f"target: {100 * estimate.target:.4g}% right")
    if estimate.low is not None and estimate.high is not None:
        ends_of_interval = [last + estimate.low, last + estimate.high]
        axes.plot(
            ends_of_interval, [1 - estimate.target] * 2, color="green", linewidth=4, alpha=0.5, label="95% interval"
        )
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
