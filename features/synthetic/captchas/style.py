"""Loads the words and fonts of CAPTCHAs.

`words.txt` has 2,500 entries of three to five letters: plain English words from SCOWL's list of size 35 (Spell Checker
Oriented Word Lists, Kevin Atkinson; its notice is in `words_licence.txt`), selected by a hash, and sounds with a letter
three times. `null` is one of the words.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from PIL import ImageFont

from features.io.locations import local_path, parse_location
from schemas.errors import UsageError

CHARACTERS = "abcdefghijklmnopqrstuvwxyz"
DEFAULT_FONTS = ("cmti10", "DejaVuSerif-Bold", "cmss10", "DejaVuSansMono-BoldOblique")

_WORD = re.compile(r"[a-z]{3,5}")
_FONT_SUFFIXES = (".ttf", ".otf")
_UNDEFINED_CHARACTER = "\uffff"
_CHECK_SIZE = 64  # pixels per em


@dataclass(frozen=True)
class CaptchaStyle:
    """The words and the font files of a set of CAPTCHAs. Each CAPTCHA uses one word and one font, chosen uniformly."""

    words: tuple[str, ...]
    fonts: tuple[str, ...]


@cache
def load_default_words() -> tuple[str, ...]:
    """Returns the 2,500 words of the package in alphabetical order."""
    return tuple(files(__package__).joinpath("words.txt").read_text(encoding="ascii").split())


def read_words(path: str | Path) -> tuple[str, ...]:
    """Reads words of three to five letters a-z from a file with one unique word per line."""
    location = f"--word-list {path}"
    try:
        words = parse_location(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the file: {error}", location=location) from None
    if not words:
        raise UsageError("the file is empty", location=location, hint="Write one word per line.")
    seen: set[str] = set()
    for number, word in enumerate(words, 1):
        if not _WORD.fullmatch(word):
            raise UsageError(f"line {number}: {word[:40]!r} is not three to five letters a-z", location=location)
        if word in seen:
            raise UsageError(f"line {number}: {word!r} is repeated", location=location)
        seen.add(word)
    return tuple(words)


def find_default_fonts(names: Iterable[str] = DEFAULT_FONTS) -> tuple[str, ...]:
    """Returns the files of Matplotlib's fonts by their names without extension."""
    import matplotlib

    return tuple(str(Path(matplotlib.get_data_path()) / "fonts/ttf" / f"{name}.ttf") for name in names)


def list_fonts(directory: str | Path) -> tuple[str, ...]:
    """Returns the .ttf and .otf files of a directory, sorted by name, if each has all characters."""
    location = f"--font-dir {directory}"
    if not local_path(directory, "--font-dir").is_dir():
        raise UsageError("the directory does not exist", location=location, hint="Choose one with .ttf or .otf files.")
    fonts = sorted(str(path) for path in Path(directory).iterdir() if path.suffix.lower() in _FONT_SUFFIXES)
    if not fonts:
        raise UsageError("the directory has no .ttf or .otf files", location=location)
    for font in fonts:
        try:
            opened = open_font(font, _CHECK_SIZE)
        except OSError as error:
            raise UsageError(f"not a font: {error}", location=font, hint="Remove the file.") from None
        undefined = (b"", bytes(opened.getmask(_UNDEFINED_CHARACTER)))
        missing = [character for character in CHARACTERS if bytes(opened.getmask(character)) in undefined]
        if missing:
            raise UsageError(f"the font lacks {''.join(missing)}", location=font, hint="Remove the file.")
    return tuple(fonts)


def open_font(file: str, size: int) -> ImageFont.FreeTypeFont:
    """Opens a font at a size in pixels per em, with a layout that is the same on every machine."""
    return ImageFont.truetype(file, size, layout_engine=ImageFont.Layout.BASIC)
