"""Plots the loss by epoch, the confusion matrix of characters, and the attention maps of a caption."""

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

from features.images.decode import open_image
from features.images.resize import Resizer
from features.io.atomic_files import atomic_write
from schemas.errors import CaptError, UsageError, to_record_error
from trainer.runs.captioner_run import Caption
from trainer.runs.epoch_metrics import EpochMetrics

_COLUMNS = 5
_MAX_PIXELS = (320, 320)  # width and height of the image in a panel
_DPI = 110
_PANEL_INCHES = 2.4
_MAX_ASPECT_RATIO = 4  # of a panel; a longer image leaves the rest of its panel empty
_MAX_SIDE = 1 << 15  # pixels; Matplotlib and JPEG refuse twice as many
_TITLE_INCHES = 0.3
_MIN_ERROR_RATE = 1e-4  # a logarithmic axis cannot show 0
# Standard deviation of the Gaussian: 20 of 224 pixels as in the paper, but large enough to hide the grid.
_BLUR, _MIN_BLUR = 20 / 224, 0.6


class InlineFigure(Figure):
    """A figure that a notebook shows without pyplot."""

    def _repr_png_(self) -> bytes:
        return encode_figure(self, "png")


def loss_figure(
    history: Sequence[EpochMetrics], unit: str = "cross-entropy (nats per token)", *, from_zero: bool = False
) -> Figure:
    """Plots the loss by epoch, for at least one epoch, and the next-word accuracy beside it if there is one.

    Args:
        history: The epochs.
        unit: The label of the loss axis.
        from_zero: Whether the axes of the values begin at 0.
    """
    panels = 2 if getattr(history[0], "token_accuracy", None) is not None else 1
    figure = InlineFigure(figsize=(11, 4) if panels == 2 else (6, 4), layout="constrained")
    _plot_by_epoch(figure.add_subplot(1, panels, 1, xlabel="epoch", ylabel=unit), history, "loss")
    if panels == 2:
        axes = figure.add_subplot(1, 2, 2, xlabel="epoch", ylabel="next-word accuracy")
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        _plot_by_epoch(axes, history, "token_accuracy")
    if from_zero:
        for axes in figure.axes:
            axes.set_ylim(bottom=0)
    return figure


def recognizer_figure(history: Sequence[EpochMetrics], *, from_zero: bool = False) -> Figure:
    """Plots loss and error rate (fraction of wrong labels, logarithmic axis) by epoch, for at least one epoch.

    `from_zero` begins the axis of the loss at 0.
    """
    figure = InlineFigure(figsize=(11, 4), layout="constrained")
    losses = figure.add_subplot(1, 2, 1, xlabel="epoch", ylabel="loss (nats per label)")
    _plot_by_epoch(losses, history, "loss")
    if from_zero:
        losses.set_ylim(bottom=0)
    axes = figure.add_subplot(1, 2, 2, xlabel="epoch", ylabel="wrong labels", yscale="log")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    _plot_by_epoch(axes, history, "exact_match", lambda accuracy: max(1 - accuracy, _MIN_ERROR_RATE))
    return figure


def _plot_by_epoch(
    axes: Axes, history: Sequence[EpochMetrics], name: str, transform: Callable[[float], float] = lambda value: value
) -> None:
    """Plots a metric of the training and of the validation split, if it has values."""
    for metric, label in ((name, "train"), (f"val_{name}", "validation")):
        values = [(row.epoch, getattr(row, metric, None)) for row in history]
        points = [(epoch, transform(value)) for epoch, value in values if value is not None]
        if points:
            axes.plot(*zip(*points, strict=True), marker=".", label=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend()


def confusion_figure(counts: NDArray[np.int64], charset: str) -> Figure:
    """Plots how often characters were confused; darker cells are more frequent. Correct characters are omitted.

    Rows of `counts` [N + 1, N + 1] are true characters, columns predicted ones; the last ones mean no character.
    """
    figure = Figure(figsize=(8, 7.4), layout="constrained")
    axes = figure.add_subplot(xlabel="predicted", ylabel="true")
    errors = np.where(np.eye(len(counts), dtype=bool), 0, counts)
    image = axes.imshow(np.ma.masked_equal(errors, 0), cmap="Blues", vmin=0, vmax=max(1, errors.max()))
    figure.colorbar(image, ax=axes, label="characters", shrink=0.8)
    names = [*charset, "none"]
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    return figure


def draw_attention_maps(image: bytes | None, caption: Caption, resizer: Resizer) -> bytes | None:
    """Draws the attention map of each word over the part of an encoded image that the model receives, as JPEG.

    None if there is no attention, or the image or the maps cannot be drawn.
    """
    if image is None or caption.attention is None or not caption.words:
        return None
    try:
        opened = open_image(image)
        opened.thumbnail(_MAX_PIXELS)
        return encode_figure(attention_figure(resizer.crop_visible(opened), caption.words, caption.attention), "jpeg")
    except Exception as error:
        to_record_error("draw", error)
        return None


def attention_figure(image: Image.Image, words: Sequence[str], attention: NDArray[np.float32]) -> Figure:
    """Plots the visible part of an image in any resolution, and one panel per word with its attention map.

    `attention` [words, locations] are weights as in `attention_map`.
    """
    panels = len(words) + 1
    columns = min(_COLUMNS, panels)
    rows = -(-panels // columns)
    aspect_ratio = min(max(image.height / image.width, 1 / _MAX_ASPECT_RATIO), _MAX_ASPECT_RATIO)
    height = _PANEL_INCHES * aspect_ratio + _TITLE_INCHES
    figure = Figure(figsize=(_PANEL_INCHES * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel in axes:
        panel.set_axis_off()
    pixels = np.asarray(image.convert("RGB"))
    axes[0].imshow(pixels)
    for panel, word, weights in zip(axes[1:], words, attention, strict=False):
        panel.imshow(pixels)
        panel.imshow(attention_map(weights, image.width, image.height), cmap="magma", alpha=0.6)
        # Matplotlib would parse a dollar sign as the beginning of a formula.
        panel.set_title(word.replace("$", r"\$"))
    return figure


def attention_map(weights: NDArray[np.float32], width: int, height: int) -> NDArray[np.float32]:
    """Upsamples the attention weights of one word to the image's size, with a Gaussian filter (Xu et al., 2015).

    Each pixel is the mean of the locations around it, weighted by a Gaussian of the distance. The border locations are
    repeated beyond the border.

    The weights [locations] are row by row in a square grid; CaptError if their number is not a square. The map is
    [height, width].
    """
    side = math.isqrt(len(weights))
    if side * side != len(weights):
        raise CaptError(f"{len(weights)} spatial locations do not form a square grid, so there is no attention map")
    grid = np.asarray(weights, np.float32).reshape(side, side)
    return (_interpolation_weights(side, height) @ grid @ _interpolation_weights(side, width).T).astype(np.float32)


def _interpolation_weights(locations: int, pixels: int) -> NDArray[np.float32]:
    """Returns the weight of each location for each pixel along one side: float32 [pixels, locations], rows sum to 1."""
    deviation = max(_BLUR * locations, _MIN_BLUR)
    padding = math.ceil(4 * deviation)
    centers = np.arange(-padding, locations + padding)
    positions = (np.arange(pixels) + 0.5) * locations / pixels - 0.5
    gaussian = np.exp(-((positions[:, None] - centers) ** 2) / (2 * deviation**2))
    clipped = np.clip(centers, 0, locations - 1)[:, None] == np.arange(locations)
    return np.asarray((gaussian / gaussian.sum(axis=1, keepdims=True)) @ clipped, np.float32)


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure atomically in the format of the suffix, PNG without one; UsageError if it is not a format."""
    suffix = path.suffix.lstrip(".").lower() or "png"
    canvas: Any = FigureCanvasAgg(figure)
    if suffix not in canvas.get_supported_filetypes():
        raise UsageError(f"{path.suffix} is not an image format", location=str(path), hint="Use .png.")
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format=suffix, dpi=_resolution(figure))


def encode_figure(figure: Figure, image_format: str) -> bytes:
    """Encodes a figure as `png` or `jpeg`."""
    data = BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(data, format=image_format, dpi=_resolution(figure))
    return data.getvalue()


def _resolution(figure: Figure) -> float:
    """Returns the dots per inch of a figure, fewer if it would be too large to draw."""
    return min(_DPI, float(_MAX_SIDE / max(figure.get_size_inches())))
