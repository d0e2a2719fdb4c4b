"""Shows, encodes and writes figures, without Matplotlib's global state."""

import contextlib
from collections.abc import Collection, Iterator
from io import BytesIO
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from features.io.atomic_files import atomic_write
from features.io.locations import local_path
from schemas.errors import CaptError, UsageError

_DPI = 110
_FORMATS = FigureCanvasAgg.get_supported_filetypes()
_MAX_SIDE = 1 << 15  # pixels; Matplotlib and JPEG refuse twice as many


class InlineFigure(Figure):
    """A figure that a notebook shows if it is the value of a cell."""

    def _repr_png_(self) -> bytes:
        return encode_figure(self, "png")


def check_figure_path(figure: str | Path, option: str, other_suffixes: Collection[str] = ()) -> Path:
    """Returns the path of a figure to write; `option` names it.

    `other_suffixes`, such as `.gif`, are accepted in addition to those of Matplotlib.

    Raises:
        UsageError: It is a URI or a directory, or its suffix is not an image format.
    """
    path = local_path(figure, option)
    if path.is_dir():
        raise UsageError("this is a directory", location=f"{option} {figure}", hint="Choose a file, such as plot.png.")
    if path.suffix.lower() not in other_suffixes:
        _find_format(path, option)
    return path


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure atomically in the format of the suffix, PNG without one.

    Raises:
        UsageError: The suffix is not an image format.
        CaptError: The file cannot be written.
    """
    image_format = _find_format(path)
    FigureCanvasAgg(figure)
    with write_image(path) as temporary:
        figure.savefig(temporary, format=image_format, dpi=_resolution(figure))


@contextlib.contextmanager
def write_image(path: Path) -> Iterator[Path]:
    """Yields a temporary path, whose file then replaces `path`; CaptError if it cannot be written."""
    try:
        with atomic_write(path) as temporary:
            yield temporary
    except OSError as error:
        raise CaptError(f"the image cannot be written: {error.strerror or error}", location=str(path)) from None


def encode_figure(figure: Figure, image_format: str) -> bytes:
    """Encodes a figure as `png` or `jpeg`."""
    data = BytesIO()
    FigureCanvasAgg(figure)
    figure.savefig(data, format=image_format, dpi=_resolution(figure))
    return data.getvalue()


def _find_format(path: Path, option: str = "") -> str:
    suffix = path.suffix.lstrip(".").lower() or "png"
    if suffix not in _FORMATS:
        location = f"{option} {path}".strip()
        raise UsageError(f"{path.suffix} is not an image format", location=location, hint="Use .png.")
    return suffix


def _resolution(figure: Figure) -> float:
    """Returns the dots per inch of a figure, fewer if it would be too large to draw."""
    return min(_DPI, float(_MAX_SIDE / max(figure.get_size_inches())))
