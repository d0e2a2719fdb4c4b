"""Draws the attention maps of a caption over its image, as a figure or as an animation, word by word.

Every map is drawn from 0: up to its own maximum or, with the scale `caption`, up to the maximum of all maps of the
caption. So a map of equal weights has one color, and does not look like a preference.
"""

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import get_args

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from schemas.choices import AttentionScale, AttentionStyle
from schemas.errors import CaptError, UsageError
from trainer.figures.figure_files import InlineFigure, encode_figure, save_figure, write_image

_COLUMNS = 5
_PANEL_INCHES = 2.4
_MAX_ASPECT_RATIO = 4  # of a panel; a longer image leaves the rest of its panel empty
_LINE_INCHES = 0.3
_MARGIN_INCHES = 0.04
_CHARACTERS_PER_PANEL = 22  # of a title in a panel's width
# Standard deviation of the Gaussian: 20 of 224 pixels as in the paper, but large enough to hide the grid.
_BLUR, _MIN_BLUR = 20 / 224, 0.6
_COLORS = {"smooth": "magma", "grid": "gray"}
_OPACITY = 0.6
ANIMATIONS = {".gif": "GIF", ".webp": "WEBP"}
_FRAME_MS, _LAST_FRAME_MS = 800, 2400


@dataclass(frozen=True)
class AttentionMaps:
    """The attention maps of a caption, with the image that they are drawn over.

    Args:
        image: The part of the image that the model receives, in any resolution.
        title: The caption.
        words: The words of the maps, the end token included if its map is known.
        weights: Attention weights float [words, locations], row by row in a square grid; or of each layer and head,
            float [layers, heads, words, locations].
        style: `smooth` upsamples a map with a Gaussian filter; `grid` draws each location as a gray rectangle.
        scale: Largest value of the color scale, which begins at 0: `word`, the maximum of each map; or `caption`, the
            maximum of all maps.

    Raises:
        CaptError: The number of locations is not a square.
        UsageError: Style or scale is unknown.
    """

    image: Image.Image
    title: str
    words: Sequence[str]
    weights: NDArray[np.floating]
    style: AttentionStyle = "smooth"
    scale: AttentionScale = "word"

    def __post_init__(self) -> None:
        for name, value, values in (("style", self.style, AttentionStyle), ("scale", self.scale, AttentionScale)):
            if value not in get_args(values):
                raise UsageError(f"expected {' or '.join(get_args(values))}, got {value!r}", location=name)
        locations = self.weights.shape[-1]
        if math.isqrt(locations) ** 2 != locations:
            raise CaptError(f"{locations} spatial locations do not form a square grid, so there is no attention map")

    def figure(self) -> Figure:
        """Plots the image, then one panel per word; per layer and head, one row with a panel per word."""
        return self._plot_words() if self.weights.ndim == 2 else self._plot_heads()

    def save(self, path: Path) -> None:
        """Writes the figure or, with the suffix .gif or .webp, an animation; errors as `save_figure`.

        The animation has one frame per word. A caption without words has one frame without a map.
        """
        name = ANIMATIONS.get(path.suffix.lower())
        if name is None:
            save_figure(self.figure(), path)
            return
        first, *others = self._frames()
        durations = [*[_FRAME_MS] * len(others), _LAST_FRAME_MS]
        with write_image(path) as temporary:
            first.save(temporary, name, save_all=True, append_images=others, duration=durations, loop=0)

    def _plot_words(self) -> Figure:
        panels = len(self.words) + 1
        columns = min(_COLUMNS, panels)
        rows = -(-panels // columns)
        figure, axes = self._make_figure(rows, columns)
        axes[0].imshow(self._pixels)
        for panel, word, drawn in zip(axes[1:], self.words, self._maps(self.weights), strict=False):
            self._draw(panel, *drawn)
            _set_title(panel, word)
        return figure

    def _plot_heads(self) -> Figure:
        layers, heads, words, locations = self.weights.shape
        figure, axes = self._make_figure(layers * heads, words + 1)
        grid = np.reshape(np.asarray(axes, dtype=object), (layers * heads, words + 1))
        maps = self._maps(self.weights.reshape(layers * heads * words, locations))
        for number, (name, *panels) in enumerate(grid):
            name.imshow(self._pixels)
            _set_title(name, f"layer {number // heads + 1}, head {number % heads + 1}")
            for panel, word in zip(panels, self.words, strict=True):
                self._draw(panel, *next(maps))
                _set_title(panel, word)
        return figure

    def _make_figure(self, rows: int, columns: int) -> tuple[Figure, list[Axes]]:
        title = textwrap.fill(self.title, _CHARACTERS_PER_PANEL * columns)
        height = (self._panel_height + _LINE_INCHES) * rows + _LINE_INCHES * (title.count("\n") + 1)
        width = _PANEL_INCHES * columns
        figure = InlineFigure(figsize=(width, height))
        # Panels of known sizes need no layout engine, which would take most of the time.
        places = {
            "left": _MARGIN_INCHES / width,
            "right": 1 - _MARGIN_INCHES / width,
            "bottom": _MARGIN_INCHES / height,
            "top": 1 - _LINE_INCHES * (title.count("\n") + 2) / height,
            "wspace": 2 * _MARGIN_INCHES / _PANEL_INCHES,
            "hspace": _LINE_INCHES / self._panel_height,
        }
        axes = list(figure.subplots(rows, columns, squeeze=False, gridspec_kw=places).ravel())
        for panel in axes:
            panel.set_axis_off()
        figure.suptitle(_as_text(title), y=1 - _MARGIN_INCHES / height)
        return figure, axes

    def _frames(self) -> Iterator[Image.Image]:
        """Draws one image per word: the caption up to the word, and the word's map of each layer and head."""
        grids = self.weights if self.weights.ndim == 4 else self.weights[None, None]
        layers, heads, words, locations = grids.shape
        maps = list(self._maps(grids.transpose(2, 0, 1, 3).reshape(words * layers * heads, locations)))
        for word in range(max(words, 1)):
            yield self._draw_frame(maps[word * layers * heads :][: layers * heads], word, layers, heads)

    def _draw_frame(
        self, maps: Sequence[tuple[NDArray[np.floating], float]], word: int, layers: int, heads: int
    ) -> Image.Image:
        # The place of the title is the same in all frames.
        width = _CHARACTERS_PER_PANEL * max(heads, 2)
        lines = len(textwrap.wrap(" ".join(self.words), width)) + 1
        panel_width = _PANEL_INCHES * (2 if heads == 1 else 1)
        top = lines * _LINE_INCHES
        size = (panel_width * heads, self._panel_height * panel_width / _PANEL_INCHES * layers + top)
        figure = Figure(figsize=size)
        grid = figure.add_gridspec(layers, heads, left=0.02, right=0.98, bottom=0.02, top=1 - top / size[1])
        for number in range(layers * heads):
            panel = figure.add_subplot(grid[number // heads, number % heads])
            panel.set_axis_off()
            if number < len(maps):
                self._draw(panel, *maps[number])
            else:
                panel.imshow(self._pixels)
        text = textwrap.fill(" ".join(self.words[: word + 1]), width)
        figure.text(0.02, 1 - _LINE_INCHES / 2 / size[1], _as_text(text), va="top", fontsize="large")
        with Image.open(BytesIO(encode_figure(figure, "png"))) as frame:
            return frame.convert("RGB")

    @property
    def _pixels(self) -> NDArray[np.uint8]:
        return np.asarray(self.image.convert("RGB"))

    @property
    def _panel_height(self) -> float:
        ratio = self.image.height / self.image.width
        return _PANEL_INCHES * min(max(ratio, 1 / _MAX_ASPECT_RATIO), _MAX_ASPECT_RATIO)

    def _maps(self, weights: NDArray[np.floating]) -> Iterator[tuple[NDArray[np.floating], float]]:
        """Iterates over the map of each row of weights [N, locations], with the largest value of its color scale."""
        maps = [self._map(row) for row in weights]
        largest = max((drawn.max() for drawn in maps), default=0.0)
        for drawn in maps:
            yield drawn, float(largest if self.scale == "caption" else drawn.max())

    def _map(self, weights: NDArray[np.floating]) -> NDArray[np.floating]:
        if self.style == "grid":
            side = math.isqrt(len(weights))
            return np.asarray(weights, np.float32).reshape(side, side)
        return attention_map(weights, self.image.width, self.image.height)

    def _draw(self, panel: Axes, drawn: NDArray[np.floating], largest: float) -> None:
        image = panel.imshow(self._pixels)
        colors, extent = _COLORS[self.style], image.get_extent()
        panel.imshow(drawn, colors, alpha=_OPACITY, extent=extent, vmin=0, vmax=largest or 1, interpolation="nearest")


def attention_map(weights: NDArray[np.floating], width: int, height: int) -> NDArray[np.float32]:
    """Upsamples the attention weights of one word to the image's size, with a Gaussian filter (Xu et al., 2015).

    Each pixel is the mean of the locations around it, weighted by a Gaussian of the distance. The border locations are
    repeated beyond the border. The weights [locations] are row by row in a square grid; the map is [height, width].
    """
    side = math.isqrt(len(weights))
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


def _set_title(panel: Axes, text: str) -> None:
    panel.set_title(_as_text(text), y=1.0)  # without a search for a place above the ticks, which are off


def _as_text(text: str) -> str:
    """Escapes dollar signs; Matplotlib would parse one as the beginning of a formula."""
    return text.replace("$", r"\$")
