"""Pictures of a run: losses by epoch, letters taken for others, what a captioner looked at while it said each word."""

import math
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray
from PIL import Image

from features.io.atomic_files import atomic_write
from schemas.errors import CaptError, UsageError
from trainer.training.epoch_metrics import EpochMetrics

_COLUMNS = 5
_DOTS_PER_INCH = 110
_PANEL_INCHES = 2.4
_MOST_PROPORTION = 4  # of a panel's sides; a longer image leaves the rest of its panel empty
_MOST_DOTS = 1 << 15  # of a picture's side; Matplotlib and JPEG refuse twice as many
_TITLE_INCHES = 0.3
_LEAST_WRONG = 1e-4  # a logarithmic scale has no place for none
# The Gaussian's deviation: that of the paper's figures, 20 pixels of 224, but never so little that the grid shows.
_BLUR, _LEAST_BLUR = 20 / 224, 0.6


def loss_figure(history: Sequence[EpochMetrics], unit: str = "cross entropy, nats a token") -> Figure:
    """Loss by epoch, of training and of validation where there was one.

    Args:
        history: sequence of EpochMetrics, at least one.
        unit: str. What the loss is.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    _by_epoch(figure.add_subplot(xlabel="epoch", ylabel=unit), history, "loss")
    return figure


def words_figure(history: Sequence[EpochMetrics]) -> Figure:
    """Loss by epoch, and beside it the share of words that are read wrong, on a logarithmic scale.

    Args:
        history: sequence of EpochMetrics, at least one.
    """
    figure = Figure(figsize=(11, 4), layout="constrained")
    _by_epoch(figure.add_subplot(1, 2, 1, xlabel="epoch", ylabel="loss, nats a word"), history, "loss")
    axes = figure.add_subplot(1, 2, 2, xlabel="epoch", ylabel="words read wrong", yscale="log")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    _by_epoch(axes, history, "accuracy", lambda right: max(1 - right, _LEAST_WRONG))
    return figure


def _by_epoch(
    axes: Axes, history: Sequence[EpochMetrics], name: str, shown: Callable[[float], float] = lambda value: value
) -> None:
    """Draw a figure of every epoch, and the one of validation that is named like it."""
    for figure, label in ((name, "train"), (f"val_{name}", "validation")):
        points = [(row.epoch, getattr(row, figure)) for row in history]
        known = [(epoch, shown(value)) for epoch, value in points if value is not None]
        if known:
            axes.plot(*zip(*known, strict=True), marker=".", label=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()


def confusion_figure(counts: NDArray[np.int64], letters: str) -> Figure:
    """Which letters were read for which, darker for more often; letters that were read right are left out.

    Args:
        counts: int64 array [N + 1, N + 1]. Rows are letters said, columns letters read; the last ones are none.
        letters: str. The N letters.
    """
    figure = Figure(figsize=(8, 7.4), layout="constrained")
    axes = figure.add_subplot(xlabel="read", ylabel="said")
    wrong = np.where(np.eye(len(counts), dtype=bool), 0, counts)
    drawn = axes.imshow(np.ma.masked_equal(wrong, 0), cmap="Blues", vmin=0, vmax=max(1, wrong.max()))
    figure.colorbar(drawn, ax=axes, label="letters", shrink=0.8)
    names = [*letters, "none"]
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    return figure


def attention_figure(image: Image.Image, words: Sequence[str], attention: NDArray[np.float32]) -> Figure:
    """The image, then one panel a word with the attention over it, bright where the model looked.

    Args:
        image: PIL image. As the extractor saw it, or larger; the maps are stretched over all of it.
        words: sequence of str. The caption.
        attention: float array [words, places]. Weights, places row by row in a square grid.

    Raises:
        CaptError: the places are no square grid.
    """
    panels = len(words) + 1
    columns = min(_COLUMNS, panels)
    rows = -(-panels // columns)
    proportion = min(max(image.height / image.width, 1 / _MOST_PROPORTION), _MOST_PROPORTION)
    height = _PANEL_INCHES * proportion + _TITLE_INCHES
    figure = Figure(figsize=(_PANEL_INCHES * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in axes:
        panel.set_axis_off()
    picture = np.asarray(image.convert("RGB"))
    axes[0].imshow(picture)
    for panel, word, weights in zip(axes[1:], words, attention, strict=False):
        panel.imshow(picture)
        panel.imshow(attention_map(weights, image.width, image.height), cmap="magma", alpha=0.6)
        # A word is data: without escaping, a dollar sign would begin a formula.
        panel.set_title(word.replace("$", r"\$"))
    return figure


def attention_map(weights: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """One word's attention at an image's size, upsampled and smoothed by a Gaussian, as Xu et al. (2015) show it.

    Each pixel gets the mean of the places around it, weighted by a Gaussian of its distance to their centres; beyond
    the border stand the border's own places.

    Args:
        weights: float array [places], row by row in a square grid.
        width: int. The image's columns.
        height: int. The image's rows.

    Returns:
        float32 array [height, width], within the range of the weights.

    Raises:
        CaptError: the places are no square grid.
    """
    side = math.isqrt(len(weights))
    if side * side != len(weights):
        raise CaptError(f"{len(weights)} places are no square grid, so they cannot be shown over an image")
    grid = np.asarray(weights, np.float32).reshape(side, side)
    return _spread(side, height) @ grid @ _spread(side, width).T


def _spread(places: int, pixels: int) -> NDArray[np.float32]:
    """How much each pixel of a side gets of each place along it: float32 [pixels, places], rows sum to 1."""
    deviation = max(_BLUR * places, _LEAST_BLUR)
    beyond = math.ceil(4 * deviation)
    centres = np.arange(-beyond, places + beyond)
    at = (np.arange(pixels) + 0.5) * places / pixels - 0.5
    near = np.exp(-((at[:, None] - centres) ** 2) / (2 * deviation**2))
    inside = np.clip(centres, 0, places - 1)[:, None] == np.arange(places)
    return ((near / near.sum(axis=1, keepdims=True)) @ inside).astype(np.float32)


def save_figure(figure: Figure, path: Path) -> None:
    """Draw a figure into an image file, in the format of its suffix, whole or not at all.

    Raises:
        UsageError: the suffix names no format.
    """
    kind = path.suffix.lstrip(".").lower() or "png"
    canvas: Any = FigureCanvasAgg(figure)
    if kind not in canvas.get_supported_filetypes():
        raise UsageError(f"no picture can be written as {path.suffix}", location=str(path), hint="use .png")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=_dots_per_inch(figure))


def encode_figure(figure: Figure, kind: str) -> bytes:
    """A figure as an encoded image: `kind` is `png` or `jpeg`."""
    data = BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(data, format=kind, dpi=_dots_per_inch(figure))
    return data.getvalue()


def _dots_per_inch(figure: Figure) -> float:
    """Returns the resolution of a figure, lower for one that would be too large to draw."""
    return min(_DOTS_PER_INCH, _MOST_DOTS / max(figure.get_size_inches()))
