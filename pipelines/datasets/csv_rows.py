"""Divides CSV text into rows in linear time, so that a row that cannot be read costs its first line alone.

A quoted field may hold line ends, so a row with an open quote goes on to the line in which the quote closes. All rows
that begin between these two lines and are open at the end of their own line end there too. The closing line is
therefore searched for once, however many rows begin before it.
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pipelines.datasets.base import FailedRecord
from pipelines.datasets.lines import report_mixed_ends, shorten

# The csv module's own limit of a field.
MAX_ROW = 131_072

_State = Literal["complete", "open", "bad"]

_LINE_END = re.compile(rb"\r*\n|\r")
_SHOWN = 640


class Fields(NamedTuple):
    """The fields of a row, and the place of its first line."""

    place: str
    fields: list[str]


@dataclass(frozen=True)
class _Closing:
    """The line in which an open quote closes.

    Args:
        start: Where the line starts; the length of the text if the quote never closes.
        stop: Where the line stops.
        number: Number of the line.
        state: State of the row after the line, `complete` or `bad`.
    """

    start: int
    stop: int
    number: int
    state: _State


def read_rows(data: bytes, location: str, delimiter: str) -> Iterator[Fields | FailedRecord]:
    """Reads CSV text (RFC 4180).

    Args:
        data: The text in UTF-8. What ends its first line ends all its rows.
        location: Name of the file.
        delimiter: Comma or tab.

    Yields:
        The rows that are not blank, and what cannot be read as a row.
    """
    text = _Text(data, delimiter)
    closing = _Closing(-1, -1, 0, "bad")
    start, number = 0, 1
    while start < len(data):
        stop, last = text.line_stop(start), number
        line = data[start:stop]
        state = text.state(line)
        if state == "open":
            if closing.start < stop:
                closing = text.find_closing(stop, number + 1)
            stop, last, state = closing.stop, closing.number, closing.state
        place = f"{location}:{number}"
        if state == "complete" and stop - start <= MAX_ROW:
            yield from _parse(data[start:stop], place, delimiter)
            start, number = stop, last + 1
            continue
        if state == "complete":
            yield FailedRecord(
                place, "too long", f"{stop - start:,} bytes, the limit is {MAX_ROW:,}: {_beginning(line)}"
            )
        else:
            yield FailedRecord(place, "bad quoting", _beginning(line))
        start, number = start + len(line), number + 1


class _Text:
    """CSV text by lines.

    Args:
        data: The text.
        delimiter: Comma or tab.
    """

    def __init__(self, data: bytes, delimiter: str) -> None:
        self._data = data
        end = _LINE_END.search(data)
        self._end = end[0][-1:] if end else b"\n"
        other = delimiter.encode()
        field = rb'(?:"(?:[^"]++|"")*+"|[^"%b][^%b]*+|)' % (other, other)
        self._row = re.compile(
            rb'(?:%b%b)*+(?:(?P<complete>%b)\Z|(?P<open>"(?:[^"]++|"")*+)\Z)' % (field, other, field), re.DOTALL
        )

    def line_stop(self, start: int) -> int:
        """Returns where the line that starts at `start` stops."""
        return self._data.find(self._end, start) + 1 or len(self._data)

    def state(self, line: bytes) -> _State:
        """Returns the state at the end of a line of a row that begins with the line."""
        if b'"' not in line:
            return "complete"
        match = self._row.match(line.rstrip(b"\r\n"))
        return "bad" if match is None else "complete" if match.lastgroup == "complete" else "open"

    def find_closing(self, start: int, number: int) -> _Closing:
        """Finds where a quote closes that is open at the beginning of a line."""
        while start < len(self._data):
            stop = self.line_stop(start)
            # A quote before the line stands for the one that is open.
            line = self._data[start:stop]
            state: _State = self.state(b'"' + line) if b'"' in line else "open"
            if state != "open":
                return _Closing(start, stop, number, state)
            start, number = stop, number + 1
        return _Closing(start, start, number, "bad")


def _parse(row: bytes, place: str, delimiter: str) -> Iterator[Fields | FailedRecord]:
    try:
        fields = next(csv.reader([row.decode(errors="surrogateescape")], delimiter=delimiter, strict=True), [])
    except csv.Error:  # The quotes are sound and the row is short, so a line end stands outside quotes.
        yield from report_mixed_ends(re.split(rb"[\r\n]", row), place)
        return
    if any(field.strip() for field in fields):
        yield _sound(place, fields)


def _sound(place: str, fields: list[str]) -> Fields | FailedRecord:
    text = "".join(fields)
    if "\0" in text:
        return FailedRecord(place, "NUL byte", shorten(_printable(text)))
    if not text.isascii() and _printable(text) != text:
        return FailedRecord(place, "not UTF-8", shorten(_printable(text)))
    return Fields(place, fields)


def _beginning(line: bytes) -> str:
    return shorten(line[:_SHOWN].decode(errors="replace"))


def _printable(text: str) -> str:
    return text.encode(errors="surrogateescape").decode(errors="replace")
