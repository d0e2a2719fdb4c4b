"""Reads text files of any length in blocks of whole lines, in bounded memory. gzip, zstd and bzip2 are unpacked.

file → unpacked → UTF-8 → blocks of whole lines | failure
"""

import codecs
from collections.abc import Iterable, Iterator

import pyarrow as pa

from features.inputs.archives import find_unpack_command
from features.io.open_files import open_file
from features.text.byte_order_marks import find_byte_order_mark
from features.text.lines import MAX_LINE, FailedRecord, find_line_end
from schemas.errors import UsageError

_COMPRESSION = {"gunzip": "gzip", "unzstd": "zstd", "bunzip2": "bz2"}
_BLOCK_BYTES = 1 << 20
# A read of corrupt or incomplete data returns nothing, so it costs as many unpacked bytes.
_UNPACKED_BYTES = 4096
_MAGIC_BYTES = 16


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
        """Raises UsageError for another compression, and CaptError if the service cannot be reached."""
        self.failure = None
        try:
            yield from _join_lines(_convert_to_utf8(_read_chunks(self._location)))
        except (OSError, UnicodeDecodeError) as error:
            self.failure = FailedRecord(self._location, "unreadable", f"the rest of the file: {error}")


def _read_chunks(location: str) -> Iterator[bytes]:
    """Yields the unpacked bytes of a file. The first chunk has at least four bytes if the file has."""
    with open_file(location) as file:
        command = find_unpack_command(file.read(_MAGIC_BYTES))
        file.seek(0)
        if command is None:
            yield from iter(lambda: file.read(_BLOCK_BYTES), b"")
        elif command in _COMPRESSION:
            with pa.CompressedInputStream(pa.PythonFile(file, "r"), _COMPRESSION[command]) as unpacked:
                yield from iter(lambda: unpacked.read(_UNPACKED_BYTES), b"")
        else:
            message = "the file is compressed, and only gzip, zstd and bzip2 are supported"
            raise UsageError(message, location=location, hint=f"Run `{command}` first.")


def _convert_to_utf8(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yields the text without a byte order mark; an unpaired surrogate becomes bytes that are not UTF-8."""
    first = next(chunks, b"")
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

    If reading a chunk fails, the whole lines before it are yielded, then the error is raised.
    """
    end, lines, line = b"", bytearray(), bytearray()
    try:
        for chunk in chunks:
            end = end or _find_end(chunk)
            stop = chunk.rfind(end) + 1 if end else 0
            if stop:
                lines += line + chunk[:stop]
                line = bytearray(chunk[stop:])
            elif len(line) <= MAX_LINE:
                line += chunk
            if len(lines) >= _BLOCK_BYTES:
                yield bytes(lines)
                lines.clear()
    except (OSError, UnicodeDecodeError):
        if lines:
            yield bytes(lines)
        raise
    if lines or line:
        yield bytes(lines + (line + (end or b"\n") if line else b""))


def _find_end(chunk: bytes) -> bytes:
    """Returns the last byte of line ends; empty if the chunk does not show it. CR ends lines in a text without LF."""
    return find_line_end(chunk)[-1:].encode() if b"\n" in chunk or b"\r" in chunk[:-1] else b""
