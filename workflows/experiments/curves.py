"""Plots the learning curves of all trials of an experiment in one figure."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Epochs = Sequence[Mapping[str, Any]]

_COLORS, _MANY_COLORS = "tab10", "tab20"
_NOT_PLOTTED = {"epoch", "loss", "seconds", "val_seconds"}
_LINE_INCHES = 0.22


def curves_figure(trials: Mapping[str, Epochs]) -> Figure | None:
    """Plots the loss and the first other metric by epoch, one color per trial.

    Full lines show validation, dotted lines training.

    Args:
        trials: Metrics of each epoch, by trial.

    Returns:
        The figure; None if no trial has finished an epoch.
    """
    started = {name: epochs for name, epochs in trials.items() if epochs}
    if not started:
        return None
    figure = Figure(figsize=(11, 4.2 + _LINE_INCHES * len(started)), layout="constrained")
    panels = [figure.add_subplot(1, 2, number) for number in (1, 2)]
    row = next(iter(started.values()))[0]
    metric = next(name for name in row if name not in _NOT_PLOTTED and not name.startswith("val_"))
    for axes, name, label in zip(panels, ("loss", metric), ("loss (nats)", metric.replace("_", " ")), strict=True):
        axes.set(xlabel="epoch", ylabel=label)
        _plot_metric(axes, started, name)
    lines, names = panels[0].get_legend_handles_labels()
    # Matplotlib would parse a dollar sign as the beginning of a formula.
    figure.legend(lines, [name.replace("$", r"\$") for name in names], loc="outside lower left", frameon=False)
    return figure


def _plot_metric(axes: Axes, trials: Mapping[str, Epochs], name: str) -> None:
    few = colormaps[_COLORS]
    colors = few if len(trials) <= few.N else colormaps[_MANY_COLORS]
    for number, (trial, epochs) in enumerate(trials.items()):
        color = colors(number % colors.N)
        validation = [(row["epoch"], row[f"val_{name}"]) for row in epochs if row.get(f"val_{name}") is not None]
        training = [(row["epoch"], row[name]) for row in epochs]
        axes.plot(*zip(*(validation or training), strict=True), marker=".", color=color, label=trial)
        if validation:
            axes.plot(*zip(*training, strict=True), linestyle=":", color=color)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
