"""Curves: how the trials of an experiment learned, epoch by epoch, in one picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from schemas.strict_json import parse_json
from trainer.reports.plots import encode_figure
from trainer.runs.directory import METRICS
from workflows.experiments.run_files import reading

Epochs = Sequence[Mapping[str, Any]]

_FEW, _MANY = "tab10", "tab20"
_PANELS = (("loss", "loss, nats"), ("accuracy", "accuracy"))
_LINE_INCHES = 0.22


def read_epochs(root: Path) -> list[dict[str, Any]]:
    """What each epoch of a run gave, as far as it has got; none where it has not begun."""
    path = root / METRICS
    if not path.exists():
        return []
    with reading(path):
        return [dict(parse_json(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def curves_picture(each: Mapping[str, Epochs]) -> bytes | None:
    """Loss and accuracy by epoch, a colour a trial: of validation in full, of training in dots; a PNG.

    Args:
        each: mapping. What every epoch gave, by trial.

    Returns:
        bytes, or None where no trial has finished an epoch.
    """
    learned = {name: epochs for name, epochs in each.items() if epochs}
    if not learned:
        return None
    figure = Figure(figsize=(11, 4.2 + _LINE_INCHES * len(learned)), layout="constrained")
    panels = [figure.add_subplot(1, 2, place) for place in (1, 2)]
    for axes, (name, label) in zip(panels, _PANELS, strict=True):
        axes.set(xlabel="epoch", ylabel=label)
        _draw(axes, learned, name)
    lines, names = panels[0].get_legend_handles_labels()
    figure.legend(lines, [name.replace("$", r"\$") for name in names], loc="outside lower left", frameon=False)
    return encode_figure(figure, "png")


def _draw(axes: Axes, each: Mapping[str, Epochs], name: str) -> None:
    few = colormaps[_FEW]
    colours = few if len(each) <= few.N else colormaps[_MANY]
    for number, (trial, epochs) in enumerate(each.items()):
        color = colours(number % colours.N)
        held_out = [(row["epoch"], row[f"val_{name}"]) for row in epochs if row[f"val_{name}"] is not None]
        training = [(row["epoch"], row[name]) for row in epochs]
        axes.plot(*zip(*(held_out or training), strict=True), marker=".", color=color, label=trial)
        if held_out:
            axes.plot(*zip(*training, strict=True), linestyle=":", color=color)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
