"""Parses the names of CAPTCHA images (`a12.png`) and label lines (`a12 thus`)."""

import re
from typing import NamedTuple

_NUMBER = r"a(0|[1-9][0-9]{0,14})"
_IMAGE = re.compile(rf"(?:.*/)?{_NUMBER}\.png", re.DOTALL)
_ID = re.compile(rf"{_NUMBER}(?![0-9A-Za-z_.])")
_LABEL = re.compile(rf"{_NUMBER}([ \t])(\S+)")


class LabelLine(NamedTuple):
    """A label line; `separator` is a space or a tab."""

    number: int
    label: str
    separator: str


def parse_image_number(name: str) -> int | None:
    """Returns the number of an image by its file name, with or without directories, or None."""
    match = _IMAGE.fullmatch(name)
    return int(match[1]) if match else None


def parse_line_number(line: str) -> int | None:
    """Returns the number of the image ID at the start of a line, or None."""
    match = _ID.match(line)
    return int(match[1]) if match else None


def parse_label_line(line: str) -> LabelLine | None:
    """Parses a line `a12 thus`: an ID, one space or tab, a label without white space. Returns None for another line."""
    match = _LABEL.fullmatch(line)
    return LabelLine(int(match[1]), match[3], match[2]) if match else None
