"""Plots the loss by epoch, the confusion matrix of characters, exact match by coverage, and attention maps."""

import unicodedata
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, get_font
from matplotlib.font_manager import findfont as find_font
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from features.images.resize import Resizer
from schemas.choices import AttentionScale, AttentionStyle
from schemas.errors import to_record_error
from trainer.figures.figure_files import InlineFigure, encode_figure
from trainer.metrics.calibration import CoveragePoint
from trainer.runs.captioner_run import Caption, open_visible
from trainer.runs.epoch_metrics import EpochMetrics

_MAX_PIXELS = 320  # of the longer side of an image in a panel
_ACCURACY = "next-word accuracy"
_MIN_ERROR_RATE = 1e-4  # a logarithmic axis cannot show 0


def loss_figure(
    history: Sequence[EpochMetrics], unit: str = "cross-entropy (nats per token)", *, from_zero: bool = False
) -> Figure:
    """Plots the loss by epoch, for at least one epoch, and beside it next-word accuracy and CIDEr-D if there are any.

    The loss of `objective: cider_d` in training is not a cross-entropy and is omitted; its rewards are CIDEr-D.

    Args:
        history: The epochs.
        unit: The label of the loss axis.
        from_zero: Whether the axes of the values begin at 0.
    """
    panels = _select_panels(history, unit)
    figure = InlineFigure(figsize=(6 if len(panels) == 1 else 5.5 * len(panels), 4), layout="constrained")
    for number, (label, curves) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(1, len(panels), number, xlabel="epoch", ylabel=label)
        _plot_by_epoch(axes, history, curves)
        if label == _ACCURACY:
            axes.yaxis.set_major_formatter(PercentFormatter(1))
    if from_zero:
        for axes in figure.axes:
            axes.set_ylim(bottom=0)
    return figure


def _select_panels(history: Sequence[EpochMetrics], unit: str) -> dict[str, dict[str, str]]:
    """Returns the labels of the metrics of each panel, by the label of the panel; panels without values are omitted."""
    rewards = {"reward": "train, reward of samples", "baseline": "train, reward of greedy"}
    is_self_critical = getattr(history[0], "reward", None) is not None
    trained: dict[str, dict[str, str]] = {"loss": {}, "token_accuracy": {}, "cider_d": rewards}
    panels = {
        label: {**trained[name], f"val_{name}": "validation"} if is_self_critical else _of_splits(name)
        for name, label in (("loss", unit), ("token_accuracy", _ACCURACY), ("cider_d", "CIDEr-D"))
    }
    return {
        label: curves
        for label, curves in panels.items()
        if any(getattr(history[0], name, None) is not None for name in curves)
    }


def recognizer_figure(history: Sequence[EpochMetrics], *, from_zero: bool = False) -> Figure:
    """Plots loss and error rate (fraction of wrong labels, logarithmic axis) by epoch, for at least one epoch.

    `from_zero` begins the axis of the loss at 0.
    """
    figure = InlineFigure(figsize=(11, 4), layout="constrained")
    losses = figure.add_subplot(1, 2, 1, xlabel="epoch", ylabel="loss (nats per label)")
    _plot_by_epoch(losses, history, _of_splits("loss"))
    if from_zero:
        losses.set_ylim(bottom=0)
    axes = figure.add_subplot(1, 2, 2, xlabel="epoch", ylabel="wrong labels", yscale="log")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    _plot_by_epoch(axes, history, _of_splits("exact_match"), lambda accuracy: max(1 - accuracy, _MIN_ERROR_RATE))
    return figure


def _of_splits(name: str) -> dict[str, str]:
    """Returns the labels of a metric of the training and of the validation split."""
    return {name: "train", f"val_{name}": "validation"}


def _plot_by_epoch(
    axes: Axes,
    history: Sequence[EpochMetrics],
    curves: Mapping[str, str],
    transform: Callable[[float], float] = lambda value: value,
) -> None:
    """Plots metrics, with their labels, that have values."""
    for metric, label in curves.items():
        values = [(row.epoch, getattr(row, metric, None)) for row in history]
        points = [(epoch, transform(value)) for epoch, value in values if value is not None]
        if points:
            axes.plot(*zip(*points, strict=True), marker=".", label=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()


def confusion_figure(counts: NDArray[np.int64], charset: Sequence[str]) -> Figure:
    """Plots how often characters were confused; darker cells are more frequent. Correct characters are omitted.

    Rows of `counts` [N + 1, N + 1] are true characters, columns predicted ones; the last ones mean no character.
    """
    figure = Figure(figsize=(8, 7.4), layout="constrained")
    axes = figure.add_subplot(xlabel="predicted", ylabel="true")
    errors = np.where(np.eye(len(counts), dtype=bool), 0, counts)
    image = axes.imshow(np.ma.masked_equal(errors, 0), cmap="Blues", vmin=0, vmax=max(1, errors.max()))
    figure.colorbar(image, ax=axes, label="characters", shrink=0.8)
    names = [*map(_name_character, charset), "none"]
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    return figure


def coverage_figure(points: Sequence[CoveragePoint]) -> Figure:
    """Plots exact match by coverage, from the lowest coverage to all predictions."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="coverage: labels that are not left open", ylabel="exact match of these labels")
    axes.plot([point.coverage for point in points], [point.exact_match for point in points], drawstyle="steps-pre")
    axes.set_xlim(0, 1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    axes.grid(alpha=0.3)
    return figure


def _name_character(character: str) -> str:
    """Returns a character, or its code point if the font does not have it or it is not visible by itself."""
    font = get_font(find_font(FontProperties()))
    is_visible = character.isprintable() and not character.isspace() and not unicodedata.combining(character)
    return character if is_visible and font.get_char_index(ord(character)) else f"U+{ord(character):04X}"


def draw_attention_maps(
    image: bytes | None,
    caption: Caption,
    resizer: Resizer,
    style: AttentionStyle = "smooth",
    scale: AttentionScale = "word",
    heads: bool = False,
) -> bytes | None:
    """Draws the attention map of each word over the part of an encoded image that the model receives, as JPEG.

    None if there is no attention, or the image or the maps cannot be drawn.
    """
    if image is None or caption.attention is None or not caption.words:
        return None
    try:
        visible = open_visible(image, resizer, _MAX_PIXELS)
        return encode_figure(caption.plot_maps(visible, style, scale, heads).figure(), "jpeg")
    except Exception as error:
        to_record_error("draw", error)
        return None
