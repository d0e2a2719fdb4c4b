"""Parses the names of CAPTCHA images (`a12.png`) and label lines (`a12 thus`)."""

import re

_NUMBER = r"a(0|[1-9][0-9]{0,14})"
_IMAGE = re.compile(rf"(?:.*/)?{_NUMBER}\.png", re.DOTALL)
_ID = re.compile(rf"{_NUMBER}(?![0-9A-Za-z_.])")
_LABEL = re.compile(rf"{_NUMBER} ([a-z]+)")


def parse_image_number(name: str) -> int | None:
    """Returns the number of an image by its file name, with or without directories, or None."""
    match = _IMAGE.fullmatch(name)
    return int(match[1]) if match else None


def parse_line_number(line: str) -> int | None:
    """Returns the number of the image ID at the start of a line, or None."""
    match = _ID.match(line)
    return int(match[1]) if match else None


def parse_label_line(line: str) -> tuple[int, str] | None:
    """Returns the image number and label of a line `a12 thus` (ID, one space, letters a-z), or None."""
    match = _LABEL.fullmatch(line)
    return (int(match[1]), match[2]) if match else None
