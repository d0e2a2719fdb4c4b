"""Shows, encodes and writes figures, without Matplotlib's global state."""

from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from features.io.atomic_files import atomic_write
from schemas.errors import UsageError

_DPI = 110
_MAX_SIDE = 1 << 15  # pixels; Matplotlib and JPEG refuse twice as many


class InlineFigure(Figure):
    """A figure that a notebook shows if it is the value of a cell."""

    def _repr_png_(self) -> bytes:
        return encode_figure(self, "png")


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
