"""Reads text files of any length in blocks of whole lines, in bounded memory. gzip, zstd and bzip2 are unpacked.

file → unpacked → UTF-8 → blocks of whole lines | failure
"""

import bz2
import codecs
import gzip
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

import pyarrow as pa

from features.inputs.archives import find_unpack_command
from features.io.open_files import open_file, raise_system_error
from features.text.byte_order_marks import find_byte_order_mark
from features.text.lines import MAX_LINE, FailedRecord
from schemas.errors import UsageError

_BLOCK_BYTES = 1 << 20
# A read of corrupt or incomplete zstd returns nothing, so it costs as many unpacked bytes.
_ZSTD_BYTES = 4096
_MAGIC_BYTES = 16
_MARK_BYTES = 4  # of the longest byte order mark
_CORRUPT = (OSError, EOFError, zlib.error, pa.ArrowException, UnicodeDecodeError)
# CR ends a line only if no LF follows; what follows the last one is not known yet.
_LINE_END = re.compile(rb"\r*\n|\r+(?=[^\r\n])")


class TextFile:
    """A text file at a path or URI: an iterable of blocks, which end with a line end. Each iteration reads it anew.

    The text is UTF-8, or UTF-16 or UTF-32 with a byte order mark. Of a line of more than `MAX_LINE` bytes, the
    beginning is returned, which is longer than this limit, too.

    Attributes:
        failure: Why the last iteration ended before the end of the file; None if it did not. The line before the fault
            is incomplete, and is not returned.
    """

    def __init__(self, location: str) -> None:
        self.failure: FailedRecord | None = None
        self._location = location

    def __iter__(self) -> Iterator[bytes]:
        """Raises UsageError for another compression, and CaptError if the file or service cannot be read."""
        self.failure = None
        try:
            yield from _join_lines(_convert_to_utf8(_read_chunks(self._location)))
        except _CORRUPT as error:
            raise_system_error(error, self._location)
            self.failure = FailedRecord(self._location, "unreadable", f"the rest of the file: {error}")


def _read_chunks(location: str) -> Iterator[bytes]:
    """Yields the unpacked bytes of a file."""
    with open_file(location) as file:
        command = find_unpack_command(file.read(_MAGIC_BYTES))
        file.seek(0)
        if command is None:
            yield from iter(lambda: file.read(_BLOCK_BYTES), b"")
        elif command in _UNPACKERS:
            yield from _UNPACKERS[command](file)
        else:
            message = "the file is compressed, and only gzip, zstd and bzip2 are supported"
            raise UsageError(message, location=location, hint=f"Run `{command}` first.")


def _gunzip(file: BinaryIO) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=file) as unpacked:
        yield from iter(lambda: unpacked.read1(_BLOCK_BYTES), b"")


def _bunzip2(file: BinaryIO) -> Iterator[bytes]:
    with bz2.BZ2File(file) as unpacked:
        yield from iter(lambda: unpacked.read1(_BLOCK_BYTES), b"")


def _unzstd(file: BinaryIO) -> Iterator[bytes]:
    with pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd") as unpacked:
        yield from iter(lambda: unpacked.read(_ZSTD_BYTES), b"")


# By the command of `find_unpack_command`.
_UNPACKERS: dict[str, Callable[[Any], Iterator[bytes]]] = {"gunzip": _gunzip, "bunzip2": _bunzip2, "unzstd": _unzstd}


def _convert_to_utf8(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yields the text without a byte order mark; an unpaired surrogate becomes bytes that are not UTF-8."""
    first = b""
    while len(first) < _MARK_BYTES and (chunk := next(chunks, b"")):
        first += chunk
    mark, encoding = find_byte_order_mark(first) or (b"", "utf-8")

    def rest() -> Iterator[bytes]:
        yield first[len(mark) :]
        yield from chunks

    if encoding == "utf-8":
        yield from rest()
    else:
        texts = codecs.iterdecode(rest(), encoding, "surrogatepass")
        yield from (text.encode("utf-8", "surrogatepass") for text in texts)


def _join_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yields the whole lines, in blocks of at least `_BLOCK_BYTES` but the last. The last line gets the end it lacks.

    The end of the first line is that of all lines. If reading a chunk fails, the whole lines before it are yielded,
    then the error is raised.
    """
    end, lines, line = b"", bytearray(), bytearray()
    try:
        for read in chunks:
            chunk = read
            if not end and (end := _find_end(bytes(line[-1:]) + read)):
                chunk, line = bytes(line) + read, bytearray()
            stop = chunk.rfind(end) + 1 if end else 0
            if stop:
                lines += line + chunk[:stop]
                line = bytearray(chunk[stop:])
            elif len(line) <= MAX_LINE:
                line += chunk
            if len(lines) >= _BLOCK_BYTES:
                yield bytes(lines)
                lines.clear()
    except _CORRUPT:
        if lines:
            yield bytes(lines)
        raise
    if lines or line:
        yield bytes(lines + (line + (end or b"\n") if line else b""))


def _find_end(text: bytes) -> bytes:
    """Returns the last byte of the first line end; empty if the text does not show it."""
    found = _LINE_END.search(text)
    return found[0][-1:] if found else b""
