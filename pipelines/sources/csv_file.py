"""CSV and TSV files with a header: columns `image` and `caption`, and `split` and `id` if wanted, in any order.

A row is one caption, and an image may have several; the first says the image's split. Fields that hold commas, quotes
or line ends stand in quotes (RFC 4180). A file named `.tsv` is separated by tabs. Words such as `null` and `NA` are
words.
"""

import csv
import re
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from pipelines.sources.base import CaptionEntry, ImageEntry, Malformed
from pipelines.sources.documents import Document, documents, required
from pipelines.sources.fields import Numbering, split_of
from pipelines.sources.lines import shown
from schemas.errors import CaptError

_FILES = re.compile(r"\.[ct]sv$", re.IGNORECASE)
_WANTED = ("image", "caption")
_COLUMNS = (*_WANTED, "split", "id")


class CsvFile:
    """Captions in CSV or TSV files."""

    max_failures = "5%"

    def __init__(self, annotations: Sequence[str]) -> None:
        self._annotations = required(annotations, "csv", "captions.csv")

    def images(self) -> Iterator[ImageEntry]:
        """The images that rows name."""
        for row in self._rows():
            if not isinstance(row, Malformed):
                yield ImageEntry(row.image, row.image, row.split)

    def captions(self) -> Iterator[CaptionEntry | Malformed]:
        """The captions, a row each."""
        numbering = Numbering()
        for row in self._rows():
            if isinstance(row, Malformed):
                yield row
            else:
                number = numbering.take(row.image)
                yield CaptionEntry(row.image, row.id or number, row.caption)

    def _rows(self) -> Iterator["_Row | Malformed"]:
        for document in documents(self._annotations, _FILES, "*.csv or *.tsv"):
            yield from _rows(document)


class _Row(NamedTuple):
    image: str
    caption: str
    split: str | None
    id: str


def _rows(document: Document) -> Iterator[_Row | Malformed]:
    """The rows after the header."""
    delimiter = "\t" if document.name.lower().endswith(".tsv") else ","
    rows = _records(document, delimiter)
    header = next(rows, None)
    if header is None or isinstance(header, Malformed):
        why = f"{header.reason}: {header.detail}" if header else "it is empty"
        raise CaptError(f"no header: {why}", where=document.where, mend="begin it with image and caption")
    columns = _columns(header[1], document.where)
    for row in rows:
        if isinstance(row, Malformed):
            yield row
            continue
        place, fields = row
        if len(fields) == len(header[1]):
            yield _row(place, {name: fields[column] for name, column in columns.items()})
        else:
            what = "too few columns" if len(fields) < len(header[1]) else "too many columns"
            detail = f"{len(fields)} where the header has {len(header[1])}: {shown(delimiter.join(fields))}"
            yield Malformed(place, what, detail)


def _columns(header: Sequence[str], where: str) -> dict[str, int]:
    names = [name.strip().lower() for name in header]
    for name in _COLUMNS:
        if names.count(name) > 1 or (name in _WANTED and name not in names):
            what = f"the header has {names.count(name) or 'no'} columns {name!r}: {shown(', '.join(header))}"
            raise CaptError(what, where=where, mend="it needs image and caption, and may have split and id")
    return {name: names.index(name) for name in _COLUMNS if name in names}


def _records(document: Document, delimiter: str) -> Iterator[tuple[str, list[str]] | Malformed]:
    """Rows with their first lines' places; where one cannot be read, its first line is lost, and not those after it."""
    lines, waiting, taken = document.raw_lines(), deque[tuple[int, str]](), list[tuple[int, str]]()

    def feed() -> Iterator[str]:
        while line := waiting.popleft() if waiting else next(decoded, None):
            taken.append(line)
            yield line[1]

    decoded = ((number, line.decode(errors="surrogateescape")) for number, line in lines)
    while True:
        taken.clear()
        try:
            fields = next(csv.reader(feed(), delimiter=delimiter, strict=True), None)
        except csv.Error as error:
            (number, line), *others = taken
            waiting.extendleft(reversed(others))
            yield Malformed(f"{document.where}:{number}", "bad quoting", f"{error}: {shown(_printable(line))}")
            continue
        if fields is None:
            return
        if any(field.strip() for field in fields):
            yield _sound(f"{document.where}:{taken[0][0]}", fields)


def _sound(place: str, fields: list[str]) -> tuple[str, list[str]] | Malformed:
    text = "".join(fields)
    if "\0" in text:
        return Malformed(place, "NUL byte", shown(_printable(text)))
    if not text.isascii() and _printable(text) != text:
        return Malformed(place, "not UTF-8", shown(_printable(text)))
    return place, fields


def _printable(line: str) -> str:
    return line.encode(errors="surrogateescape").decode(errors="replace")


def _row(place: str, fields: Mapping[str, str]) -> _Row | Malformed:
    image = fields["image"].strip()
    if not image:
        return Malformed(place, "no image", shown(fields["caption"]))
    try:
        split = split_of(fields.get("split", ""))
    except ValueError as error:
        return Malformed(place, "unknown split", str(error))
    return _Row(image, fields["caption"], split, fields.get("id", "").strip())
