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
from typing import Any

from PIL import ImageFont

from features.io.locations import local_path, parse_location
from schemas.errors import UsageError

CHARACTERS = "abcdefghijklmnopqrstuvwxyz"
WIDTH, HEIGHT = 600, 320
NUM_STROKES = (8, 20)
MAX_ROTATION = 24
DEFAULT_FONTS = ("cmti10", "DejaVuSerif-Bold", "cmss10", "DejaVuSansMono-BoldOblique")

_MIN_SIDE, _MOST_STROKES, _MOST_ROTATION = 100, 100, 90
_WORD = re.compile(r"[a-z]{3,5}")
_FONT_SUFFIXES = (".ttf", ".otf")
_UNDEFINED_CHARACTER = "\uffff"
_CHECK_SIZE = 64  # pixels per em


@dataclass(frozen=True)
class CaptchaStyle:
    """The words, the font files, the difficulty and the size of a set of CAPTCHAs.

    Each CAPTCHA uses one word, one font and one number of strokes, chosen uniformly.
    """

    words: tuple[str, ...]
    fonts: tuple[str, ...]
    num_strokes: tuple[int, int] = NUM_STROKES  # fewest and most lines, arcs, ellipses and dots
    max_rotation: float = MAX_ROTATION  # of a character, in degrees
    width: int = WIDTH  # in pixels
    height: int = HEIGHT

    def __post_init__(self) -> None:
        fewest, most = self.num_strokes
        hint = f"Use two numbers from 0 to {_MOST_STROKES}, the smaller first, such as 8,20."
        _check(0 <= fewest <= most <= _MOST_STROKES, f"{fewest},{most}", "--num-strokes", hint)
        hint = f"Use 0 to {_MOST_ROTATION}."
        _check(0 <= self.max_rotation <= _MOST_ROTATION, f"{self.max_rotation:g}", "--max-rotation", hint)
        for option, side, most in (("--width", self.width, WIDTH), ("--height", self.height, HEIGHT)):
            _check(_MIN_SIDE <= side <= most, str(side), option, f"Use {_MIN_SIDE} to {most}.")

    @property
    def changed_settings(self) -> dict[str, Any]:
        """The settings by name that are not the default, without words and fonts."""
        defaults = {"num_strokes": NUM_STROKES, "max_rotation": MAX_ROTATION, "width": WIDTH, "height": HEIGHT}
        changed = {name: getattr(self, name) for name, default in defaults.items() if getattr(self, name) != default}
        return {name: [*value] if isinstance(value, tuple) else value for name, value in changed.items()}


def _check(is_valid: bool, value: str, option: str, hint: str) -> None:
    if not is_valid:
        raise UsageError(f"got {value}", location=option, hint=hint)


def parse_num_strokes(text: str) -> tuple[int, int]:
    """Parses `MIN,MAX`, the fewest and most strokes."""
    match = re.fullmatch("([0-9]+),([0-9]+)", text)
    if match is None:
        raise UsageError(f"got {text!r}", location="--num-strokes", hint="Separate two numbers by a comma: 8,20.")
    return int(match[1]), int(match[2])


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
