"""Names of CAPTCHAs: the number in `a12` and in `a12.png`, and label lines `a12 thus`."""

import re

_NUMBER = r"a(0|[1-9][0-9]{0,14})"
_IMAGE = re.compile(rf"(?:.*/)?{_NUMBER}\.png", re.DOTALL)
_ID = re.compile(rf"{_NUMBER}(?![0-9A-Za-z_.])")
_LABEL = re.compile(rf"{_NUMBER} ([a-z]+)")


def parse_image_number(name: str) -> int | None:
    """The number of an image by its file's name, which may stand in folders; None where it is not called like one."""
    match = _IMAGE.fullmatch(name)
    return int(match[1]) if match else None


def parse_line_number(line: str) -> int | None:
    """The number of the image that a line begins with; None where it begins with none."""
    match = _ID.match(line)
    return int(match[1]) if match else None


def parse_label_line(line: str) -> tuple[int, str] | None:
    """Number and word of a line `a12 thus`: an id, one space, letters a–z; None where it is anything else."""
    match = _LABEL.fullmatch(line)
    return (int(match[1]), match[2]) if match else None
