"""Finds, checks and opens the fonts of CAPTCHAs."""

import string
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import ImageFont
from PIL import features as pillow_features

from features.io.locations import local_path
from schemas.errors import UsageError

DEFAULT_FONTS = ("cmti10", "DejaVuSerif-Bold", "cmss10", "DejaVuSansMono-BoldOblique")
# If no default font has all characters. They have more scripts, such as Arabic and Hebrew.
FALLBACK_FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-BoldOblique")

_FONT_SUFFIXES = (".ttf", ".otf")
_UNDEFINED_CHARACTER = "\uffff"
_CHECK_SIZE = 64  # pixels per em
_MAX_NAMED = 20  # characters that an error names
# The Computer Modern fonts of Matplotlib have other characters at some code points of ASCII, such as £ at $.
_TEX_FONTS = ("cmb10", "cmex10", "cmmi10", "cmr10", "cmss10", "cmsy10", "cmti10", "cmtt10")
_TEX_CHARACTERS = frozenset(string.ascii_letters + string.digits)


@dataclass(frozen=True)
class SelectedFonts:
    """The font files that have all characters of the labels, and why the others are skipped, by name."""

    files: tuple[str, ...]
    skipped: dict[str, str]


def find_default_fonts(names: Iterable[str] = DEFAULT_FONTS) -> tuple[str, ...]:
    """Returns the files of Matplotlib's fonts by their names without extension."""
    import matplotlib

    return tuple(str(Path(matplotlib.get_data_path()) / "fonts/ttf" / f"{name}.ttf") for name in names)


def select_default_fonts(characters: Iterable[str]) -> SelectedFonts:
    """Returns the default fonts that have all characters, or else the fallback fonts; UsageError if none has."""
    wanted = frozenset(characters)
    default = {font: _find_missing(font, wanted) for font in find_default_fonts()}
    if all(default.values()):
        default |= {font: _find_missing(font, wanted) for font in find_default_fonts(FALLBACK_FONTS)}
    return _select(default, "--font-dir", "Choose a directory of fonts that have them.")


def list_fonts(directory: str | Path, characters: Iterable[str]) -> SelectedFonts:
    """Returns the .ttf and .otf files of a directory that have all characters, sorted by name.

    Raises:
        UsageError: The directory has no such file, or a file is not a font.
    """
    location = f"--font-dir {directory}"
    if not local_path(directory, "--font-dir").is_dir():
        raise UsageError("the directory does not exist", location=location, hint="Choose one with .ttf or .otf files.")
    fonts = sorted(str(path) for path in Path(directory).iterdir() if path.suffix.lower() in _FONT_SUFFIXES)
    if not fonts:
        raise UsageError("the directory has no .ttf or .otf files", location=location)
    wanted = frozenset(characters)
    missing = {font: _find_missing(font, wanted) for font in fonts}
    return _select(missing, location, "Add a font that has them, or remove them from the labels.")


def check_shaping() -> None:
    """Raises UsageError if Pillow cannot draw scripts whose characters join, carry marks or run right to left."""
    if not pillow_features.check("raqm"):
        message = "this installation of Pillow lacks Raqm, which draws right-to-left scripts and combining marks"
        raise UsageError(message, location="--charset", hint="Install a Pillow wheel, or omit these characters.")


def open_font(file: str, size: int, *, is_shaped: bool = False) -> ImageFont.FreeTypeFont:
    """Opens a font at a size in pixels per em, with a layout that is the same on every machine.

    `is_shaped` chooses Raqm, whose shapes may differ between its versions.
    """
    layout = ImageFont.Layout.RAQM if is_shaped else ImageFont.Layout.BASIC
    return ImageFont.truetype(file, size, layout_engine=layout)


def _select(missing: dict[str, str], location: str, hint: str) -> SelectedFonts:
    """Selects the fonts that lack no character; `missing` has the lacking ones by font."""
    files = tuple(font for font, lacking in missing.items() if not lacking)
    if not files:
        best = min(missing, key=lambda font: len(missing[font]))
        message = f"no font has all characters of the labels; {Path(best).name}: {_describe(missing[best])}"
        raise UsageError(message, location=location, hint=hint)
    return SelectedFonts(files, {font: _describe(lacking) for font, lacking in missing.items() if lacking})


def _find_missing(font: str, characters: frozenset[str]) -> str:
    """Returns the characters that a font lacks, sorted; UsageError if the file is not a font."""
    try:
        opened = open_font(font, _CHECK_SIZE)
    except OSError as error:
        raise UsageError(f"not a font: {error}", location=font, hint="Remove the file.") from None
    undefined = (b"", bytes(opened.getmask(_UNDEFINED_CHARACTER)))
    wrong = characters - _TEX_CHARACTERS if Path(font).stem in _TEX_FONTS else frozenset()
    return "".join(
        character
        for character in sorted(characters)
        if character in wrong or bytes(opened.getmask(character)) in undefined
    )


def _describe(missing: str) -> str:
    return f"the font lacks {missing[:_MAX_NAMED]}{'…' if len(missing) > _MAX_NAMED else ''}"
