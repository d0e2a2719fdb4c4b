"""Pictures of a run: the loss by epoch, and what a captioner looked at while it said each word."""

import math
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from features.files import written_aside
from schemas.errors import CaptError, UsageError
from trainer.checkpoints import EpochFigures

_COLUMNS = 5
_DOTS_PER_INCH = 110
_PANEL_INCHES = 2.4
_TITLE_INCHES = 0.3
# The Gaussian's deviation: that of the paper's figures, 20 pixels of 224, but never so little that the grid shows.
_BLUR, _LEAST_BLUR = 20 / 224, 0.6


def loss_figure(history: Sequence[EpochFigures]) -> Figure:
    """Loss by epoch, of training and of validation where there was one.

    Args:
        history: sequence of EpochFigures, at least one.
    """
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="epoch", ylabel="cross entropy, nats a token")
    axes.plot([row.epoch for row in history], [row.loss for row in history], marker=".", label="train")
    validated = [(row.epoch, row.val_loss) for row in history if row.val_loss is not None]
    if validated:
        axes.plot(*zip(*validated, strict=True), marker=".", label="validation")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()
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
    height = _PANEL_INCHES * image.height / image.width + _TITLE_INCHES
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
        raise UsageError(f"no picture can be written as {path.suffix}", where=str(path), mend="use .png")
    with written_aside(path) as aside:
        figure.savefig(aside, format=kind, dpi=_DOTS_PER_INCH)


def encode_figure(figure: Figure, kind: str) -> bytes:
    """A figure as an encoded image: `kind` is `png` or `jpeg`."""
    data = BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(data, format=kind, dpi=_DOTS_PER_INCH)
    return data.getvalue()
