"""The truth about CAPTCHAs: a file of lines `a100000 thus`, taken as they are or not at all."""

from pathlib import Path

from features.io.locations import parse_location
from features.synthetic.captchas.image_names import parse_label_line
from schemas.errors import UsageError


def read_label_file(path: str | Path) -> dict[str, str]:
    """Words by image id, such as `a100000`.

    Args:
        path: str or Path. A text file in UTF-8: an id, one space and a word of the letters a to z a line.

    Raises:
        UsageError: it cannot be read, is empty, or a line is anything else or tells of an image a second time.
    """
    location = f"--labels {path}"
    try:
        lines = parse_location(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the file: {error}", location=location) from None
    words: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        found = parse_label_line(line)
        name = f"a{found[0]}" if found else ""
        if found is None or name in words:
            fault = f"tells of {name} again" if found else f"is {line[:40]!r}"
            raise UsageError(
                f"line {number} {fault}", location=location, hint="write an id, one space and a word: a0 thus"
            )
        words[name] = found[1]
    if not words:
        raise UsageError("there is no word in it", location=location)
    return words
