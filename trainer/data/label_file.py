"""Reads the true labels of images from a label file."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from features.inputs.label_files import LabelRow, find_layout, read_id_lines, read_label_table
from features.io.locations import parse_location
from features.text.byte_order_marks import convert_to_utf8
from features.text.label_rules import ANY_LABEL
from features.text.lines import FailedRecord
from schemas.errors import CaptError, RecordError, UsageError

_HINT = "Write a table with the columns image and label (.csv), or one `ID LABEL` line per image, such as `a0 thus`."


def read_label_file(path: str | Path) -> dict[str, str]:
    """Reads labels by image ID from a label file in any layout that names the images.

    The layouts are those of `features.inputs.label_files`: lines `a100000 thus`, or a table whose image names are the
    IDs. Blank lines are ignored. Text is UTF-8, or has a byte order mark.

    Raises:
        UsageError: The file cannot be read, is empty or names no images, or a line or row is invalid or repeats an ID.
    """
    location = f"--labels {path}"
    try:
        data = convert_to_utf8(parse_location(path).read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UsageError(f"the file cannot be read: {reason}", location=location) from None
    labels: dict[str, str] = {}
    for row in _read_rows(PurePosixPath(path).name, data, location):
        if isinstance(row, FailedRecord):
            raise UsageError(f"{row.reason}: {row.detail}", location=row.location, hint=_HINT)
        if row.image in labels:
            raise UsageError(f"repeats {row.image}", location=row.location, hint="Keep one of the two.")
        try:
            labels[row.image] = ANY_LABEL.apply(row.label)
        except RecordError as error:
            message = f"{row.image}: {error.reason}: {error.detail}"
            raise UsageError(message, location=row.location, hint="Correct the label.") from None
    if not labels:
        raise UsageError("the file contains no labels", location=location)
    return labels


def _read_rows(name: str, data: bytes, location: str) -> Iterator[LabelRow | FailedRecord]:
    layout = find_layout(name, data)
    if layout == "list":
        raise UsageError("the lines have no image names", location=location, hint=_HINT)
    try:
        return read_label_table(name, data, location).rows if layout == "table" else read_id_lines(data, location)
    except UsageError:
        raise
    except CaptError as error:
        raise UsageError(error.message, location=error.location, hint=error.hint) from None
