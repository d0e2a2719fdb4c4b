"""Reads the ground-truth labels of CAPTCHA images from a text file."""

from pathlib import Path

from features.io.locations import parse_location
from features.synthetic.captchas.image_names import parse_label_line
from schemas.errors import UsageError


def read_label_file(path: str | Path) -> dict[str, str]:
    """Reads labels by image ID, such as `a100000`.

    Args:
        path: A UTF-8 text file with one `ID LABEL` line per image, such as `a100000 thus`.

    Raises:
        UsageError: The file cannot be read or is empty, or a line is invalid or repeats an ID.
    """
    location = f"--labels {path}"
    try:
        lines = parse_location(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the file cannot be read: {error}", location=location) from None
    labels: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        found = parse_label_line(line)
        name = f"a{found[0]}" if found else ""
        if found is None or name in labels:
            problem = f"line {number} repeats {name}" if found else f"line {number} is {line[:40]!r}"
            raise UsageError(problem, location=location, hint="Write one `ID LABEL` line per image, such as `a0 thus`.")
        labels[name] = found[1]
    if not labels:
        raise UsageError("the file contains no labels", location=location)
    return labels
