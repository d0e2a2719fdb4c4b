"""Lines of annotation files: decoded one by one, so that a fault costs its line alone, and is told with its place."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipelines.datasets.base import FailedRecord

MAX_LINE = 16 << 20

_SHOWN = 80


@dataclass(frozen=True)
class Line:
    """A line of a document.

    Args:
        place: str. Document and number from 1, `captions.jsonl:17`.
        text: str. The line without its end.
    """

    place: str
    text: str

    def malformed(self, reason: str, why: str = "") -> FailedRecord:
        """The line as one that cannot be read as a record."""
        return FailedRecord(self.place, reason, f"{why}: {shorten(self.text)}" if why else shorten(self.text))


def shorten(text: str) -> str:
    """The beginning of a text, for a message."""
    text = text[: 4 * _SHOWN].strip()
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")


def find_line_end(data: bytes) -> bytes:
    """Returns the byte that ends the lines of a text: LF, also after CR; CR if the text has no LF."""
    return b"\n" if b"\n" in data else b"\r"


def split_lines(data: bytes, end: bytes) -> Iterator[bytes]:
    """Yields the lines of a text with their ends, one at a time."""
    start = 0
    while start < len(data):
        stop = data.find(end, start) + 1 or len(data)
        yield data[start:stop]
        start = stop


def decode_line(line: bytes, place: str) -> Iterator[Line | FailedRecord]:
    """Decodes a line.

    Args:
        line: The line in UTF-8, with its end.
        place: Document and number of the line.

    Yields:
        The line without its end, or Malformed. Several Malformed if CR stands within the line, because each part may
        be a record; nothing if the line is blank.
    """
    parts = [part for part in line.split(b"\r") if part.strip()]
    if len(parts) == 1:
        yield _decoded(parts[0].removesuffix(b"\n"), place)
    else:
        yield from report_mixed_ends(parts, place)


def report_mixed_ends(parts: Iterable[bytes], place: str) -> Iterator[FailedRecord]:
    """Yields the failed records for a line within which another line end stands, because each part may be a record.

    Args:
        parts: The parts of the line. Blank ones do not count.
        place: Document and number of the line.

    Yields:
        Malformed per part.
    """
    for number, part in enumerate((part for part in parts if part.strip()), 1):
        yield FailedRecord(f"{place} part {number}", "mixed line ends", shorten(_replaced(part)))


def _decoded(line: bytes, place: str) -> Line | FailedRecord:
    if len(line) > MAX_LINE:
        return FailedRecord(
            place, "too long", f"{len(line):,} bytes, the limit is {MAX_LINE:,}: {shorten(_replaced(line))}"
        )
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return FailedRecord(place, "not UTF-8", f"byte {error.start + 1}: {shorten(_replaced(line))}")
    return FailedRecord(place, "NUL byte", shorten(text)) if "\0" in text else Line(place, text)


def _replaced(line: bytes) -> str:
    return line[: 8 * _SHOWN].decode("utf-8", "replace")
