"""Decodes the text of annotation files line by line, so that invalid bytes fail one line only."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

MAX_LINE = 16 << 20

_EXCERPT = 80


@dataclass(frozen=True)
class FailedRecord:
    """A record that cannot be read: file and position in it, a few words that group similar failures, an excerpt."""

    location: str
    reason: str
    detail: str


@dataclass(frozen=True)
class Line:
    """A line of an annotation file without its end. `location` is file and line number, such as `a.jsonl:17`."""

    location: str
    text: str

    def fail(self, reason: str, detail: str = "") -> FailedRecord:
        """Returns a failed record for the line, with an excerpt."""
        excerpt = shorten(self.text)
        return FailedRecord(self.location, reason, f"{detail}: {excerpt}" if detail else excerpt)


def shorten(text: str) -> str:
    """Returns the quoted beginning of a text, for a message."""
    text = text[: 4 * _EXCERPT].strip()
    return repr(text if len(text) <= _EXCERPT else f"{text[:_EXCERPT]}…")


def find_line_end(data: bytes) -> Literal["\n", "\r\n", "\r"]:
    """Returns the end of the first line, as `decode_lines` reads lines; a line feed if there is only one line."""
    if b"\n" not in data:
        return "\r" if b"\r" in data else "\n"
    return "\r\n" if data.partition(b"\n")[0].endswith(b"\r") else "\n"


def decode_lines(data: bytes, location: str) -> Iterator[Line | FailedRecord]:
    """Yields the lines of UTF-8 that are not blank, without their ends: LF, CR LF, or CR in a text without LF.

    A line that is not UTF-8, contains a NUL byte, or is longer than `MAX_LINE`, is a failed record. If CR divides a
    line, each part may be a record, so each part is a failed record.
    """
    return (record for _, record in number_lines(data, location))


def decode_blocks(blocks: Iterable[bytes], location: str) -> Iterator[Line | FailedRecord]:
    """Yields what `decode_lines` yields of a text in blocks of whole lines, which end as the first one does."""
    number = 1
    for block in blocks:
        if block.endswith(b"\r"):
            yield from _decode_cr_lines(block, location, number)
            number += block.count(b"\r")
        else:
            yield from (record for _, record in number_lines(block, location, number))
            number += block.count(b"\n")


def _decode_cr_lines(block: bytes, location: str, first: int) -> Iterator[Line | FailedRecord]:
    for number, line in enumerate(block.removesuffix(b"\r").split(b"\r"), first):
        parts = [part for part in line.split(b"\n") if part.strip()]
        if len(parts) == 1:
            yield _decode(parts[0], f"{location}:{number}")
        else:
            yield from report_mixed_ends(parts, f"{location}:{number}")


def number_lines(data: bytes, location: str, first: int = 1) -> Iterator[tuple[int, Line | FailedRecord]]:
    """Yields what `decode_lines` yields, with the numbers of the lines, beginning with `first`; blank lines count."""
    for number, line in enumerate(BytesIO(data if b"\n" in data else data.replace(b"\r", b"\n")), first):
        parts = [part for part in line.split(b"\r") if part.strip()]
        if len(parts) == 1:
            yield number, _decode(parts[0].removesuffix(b"\n"), f"{location}:{number}")
        else:
            yield from ((number, part) for part in report_mixed_ends(parts, f"{location}:{number}"))


def report_mixed_ends(parts: Iterable[bytes], location: str) -> Iterator[FailedRecord]:
    """Yields one failed record per nonblank part of a line that another kind of line end divides."""
    for number, part in enumerate((part for part in parts if part.strip()), 1):
        yield FailedRecord(f"{location} part {number}", "mixed line ends", _excerpt(part))


def _decode(line: bytes, location: str) -> Line | FailedRecord:
    if len(line) > MAX_LINE:
        return FailedRecord(location, "too long", f"{len(line):,} bytes, the limit is {MAX_LINE:,}: {_excerpt(line)}")
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        return FailedRecord(location, "not UTF-8", f"byte {error.start + 1}: {_excerpt(line)}")
    return FailedRecord(location, "NUL byte", shorten(text)) if "\0" in text else Line(location, text)


def _excerpt(line: bytes) -> str:
    return shorten(line[: 8 * _EXCERPT].decode("utf-8", "replace"))
