"""Divides CSV text into rows in linear time, so that an unreadable row fails its first line only.

A row with an open quote continues to the line that closes the quote. All rows that begin between these two lines,
and are open at the end of their own line, end there too. So the closing line is searched for once per open quote.
"""

import contextlib
import csv
import re
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from features.text.lines import FailedRecord, report_mixed_ends, shorten

# The field limit of the csv module.
MAX_ROW = 131_072

_State = Literal["complete", "open", "bad"]

_LINE_END = re.compile(rb"\r*\n|\r")
_TEXT_END = re.compile(r"[\r\n]")
_EXCERPT = 640


class Fields(NamedTuple):
    """The fields of a row, and the location of its first line."""

    location: str
    fields: list[str]


@dataclass(frozen=True)
class _Closing:
    """The line in which an open quote closes, from offset `start` (the end of the text if no line does) to `stop`.

    `state` is the state of the row after the line, `complete` or `bad`.
    """

    start: int
    stop: int
    number: int
    state: _State


def read_rows(data: bytes, document: str, delimiter: str) -> Iterator[Fields | FailedRecord]:
    """Yields the rows of CSV text in UTF-8 (RFC 4180) that are not blank, and failed records.

    A row fails as `bad quoting`, `too long`, `NUL byte`, `not UTF-8` or `mixed line ends`. The end of the first line is
    the end of all lines.
    """
    return read_row_blocks([data], document, delimiter)


def read_row_blocks(blocks: Iterable[bytes], document: str, delimiter: str) -> Iterator[Fields | FailedRecord]:
    """Yields what `read_rows` yields of a text in blocks of whole lines; a block and `MAX_ROW` bytes are in memory."""
    pending, number, end = b"", 1, b""
    for block in blocks:
        end = end or _find_end(block)
        # The next block may continue a row that begins among the last bytes.
        text = _Text(pending, delimiter, end)
        start, number = yield from _read_window(text, document, number, len(pending) - MAX_ROW)
        pending = pending[start:] + block
    yield from _read_window(_Text(pending, delimiter, end), document, number, len(pending))


def _read_window(
    text: "_Text", document: str, number: int, limit: int
) -> Generator[Fields | FailedRecord, None, tuple[int, int]]:
    """Yields the rows that begin before `limit`. Returns the offset and the number of the first other line."""
    data = text.data
    closing = _Closing(-1, -1, 0, "bad")
    start = 0
    while start < limit:
        stop, last = text.find_line_stop(start), number
        line = data[start:stop]
        state = text.parse_state(line)
        if state == "open":
            if closing.start < stop:
                closing = text.find_closing(stop, number + 1)
            stop, last, state = closing.stop, closing.number, closing.state
        location = f"{document}:{number}"
        is_short = stop - start <= MAX_ROW
        if state == "complete" and is_short and _hides_rows(data[start:stop], line, text.delimiter):
            state = "bad"
        if state == "complete" and is_short:
            yield from _parse(data[start:stop], location, text.delimiter)
            start, number = stop, last + 1
            continue
        excerpt = shorten(line[:_EXCERPT].decode(errors="replace"))
        too_long = f"{stop - start:,} bytes, the limit is {MAX_ROW:,}: {excerpt}"
        reason, detail = ("too long", too_long) if state == "complete" else ("bad quoting", excerpt)
        yield FailedRecord(location, reason, detail)
        start, number = start + len(line), number + 1
    return start, number


def _hides_rows(row: bytes, line: bytes, delimiter: str) -> bool:
    """Returns whether a row that begins with `line` has a field with a line end and a tab, in a tab-separated text.

    Such texts often have no quoting, so the quote is a character, and the field consists of other rows.
    """
    if delimiter != "\t" or len(row) <= len(line):
        return False
    fields: list[str] = []
    with contextlib.suppress(csv.Error):  # A line end is outside quotes, which `_parse` reports.
        fields = next(csv.reader([row.decode(errors="surrogateescape")], delimiter=delimiter), [])
    return any("\t" in field and _TEXT_END.search(field) for field in fields)


def _find_end(data: bytes) -> bytes:
    """Returns the last byte of the first line end; LF without one."""
    end = _LINE_END.search(data)
    return end[0][-1:] if end else b"\n"


class _Text:
    def __init__(self, data: bytes, delimiter: str, end: bytes) -> None:
        self.data, self.delimiter = data, delimiter
        self._end = end
        other = delimiter.encode()
        field = rb'(?:"(?:[^"]++|"")*+"|[^"%b][^%b]*+|)' % (other, other)
        self._row = re.compile(
            rb'(?:%b%b)*+(?:(?P<complete>%b)\Z|(?P<open>"(?:[^"]++|"")*+)\Z)' % (field, other, field), re.DOTALL
        )

    def find_line_stop(self, start: int) -> int:
        return self.data.find(self._end, start) + 1 or len(self.data)

    def parse_state(self, line: bytes) -> _State:
        """Returns the state after a line with which a row begins."""
        if b'"' not in line:
            return "complete"
        match = self._row.match(line.rstrip(b"\r\n"))
        return "bad" if match is None else "complete" if match.lastgroup == "complete" else "open"

    def find_closing(self, start: int, number: int) -> _Closing:
        """Finds the line that closes the quote that is open at `start`, the offset of line `number`."""
        while start < len(self.data):
            stop = self.find_line_stop(start)
            line = self.data[start:stop]
            # The added quote replaces the open one.
            state: _State = self.parse_state(b'"' + line) if b'"' in line else "open"
            if state != "open":
                return _Closing(start, stop, number, state)
            start, number = stop, number + 1
        return _Closing(start, start, number, "bad")


def _parse(row: bytes, location: str, delimiter: str) -> Iterator[Fields | FailedRecord]:
    try:
        fields = next(csv.reader([row.decode(errors="surrogateescape")], delimiter=delimiter, strict=True), [])
    except csv.Error:  # The quotes are valid and the row is short, so a line end is outside quotes.
        yield from report_mixed_ends(re.split(rb"[\r\n]", row), location)
        return
    if any(field.strip() for field in fields):
        yield _check_text(location, fields)


def _check_text(location: str, fields: list[str]) -> Fields | FailedRecord:
    text = "".join(fields)
    printable = text.encode(errors="surrogateescape").decode(errors="replace")
    if "\0" in text:
        return FailedRecord(location, "NUL byte", shorten(printable))
    if printable != text:
        return FailedRecord(location, "not UTF-8", shorten(printable))
    return Fields(location, fields)
