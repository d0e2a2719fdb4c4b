"""Fonts: the files that letters are drawn with, by default some of those that Matplotlib comes with."""

from collections.abc import Iterable
from pathlib import Path

from PIL import ImageFont

from features.io.locations import local_path
from features.synthetic.captchas.word_list import CHARACTERS
from schemas.errors import UsageError

DEFAULT_FONTS = ("cmti10", "DejaVuSerif-Bold", "cmss10", "DejaVuSansMono-BoldOblique")

_SUFFIXES = (".ttf", ".otf")
_NO_CHARACTER = "\uffff"
_SIZE = 64  # pixels an em, to look at a font


def find_default_fonts(names: Iterable[str] = DEFAULT_FONTS) -> tuple[str, ...]:
    """The files of fonts that Matplotlib comes with, by their names without extension."""
    import matplotlib

    return tuple(str(Path(matplotlib.get_data_path()) / "fonts/ttf" / f"{name}.ttf") for name in names)


def list_fonts(directory: str | Path) -> tuple[str, ...]:
    """Every .ttf and .otf file right in a directory, by name.

    Raises: UsageError where there is none, or one cannot be read or lacks a letter.
    """
    location = f"--font-dir {directory}"
    if not local_path(directory, "--font-dir").is_dir():
        raise UsageError("there is no such directory", location=location, hint="name one with .ttf or .otf files")
    files = sorted(str(path) for path in Path(directory).iterdir() if path.suffix.lower() in _SUFFIXES)
    if not files:
        raise UsageError("no .ttf or .otf file is here", location=location)
    for file in files:
        _check(file)
    return tuple(files)


def open_font(file: str, size: int) -> ImageFont.FreeTypeFont:
    """A font at a size in pixels an em, laid out alike wherever it runs."""
    return ImageFont.truetype(file, size, layout_engine=ImageFont.Layout.BASIC)


def _check(file: str) -> None:
    try:
        font = open_font(file, _SIZE)
    except OSError as error:
        raise UsageError(f"not a font: {error}", location=file, hint="take it out") from None
    lacking = (b"", bytes(font.getmask(_NO_CHARACTER)))
    missing = [letter for letter in CHARACTERS if bytes(font.getmask(letter)) in lacking]
    if missing:
        raise UsageError(f"the font lacks {''.join(missing)}", location=file, hint="take it out")
