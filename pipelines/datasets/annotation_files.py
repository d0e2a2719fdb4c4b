"""Annotation files, wherever they lie: plain files, or members of directories and archives, local or remote."""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from features.io.uris import is_uri
from features.references import Reference, is_collection, list_files
from features.references.compression import gunzip_within, unpack_command
from pipelines.datasets.base import FailedRecord
from pipelines.datasets.lines import Line, decode_line, find_line_end, split_lines
from pipelines.datasets.record_fields import reject_duplicate_keys
from pipelines.datasets.record_reader import read_record
from pipelines.datasets.text_encoding import convert_to_utf8
from schemas.errors import CaptError, RecordError, UsageError

MAX_BYTES = 2 << 30

_GZIP = ".gz"
_MAGIC_BYTES = 16
_MOST_DIGITS = 1000

_Read = TypeVar("_Read")


@dataclass(frozen=True)
class AnnotationFile:
    """One annotation file.

    Args:
        location: str. What the user named, and the path within it: what messages say.
        name: str. Path within what was named, with slashes; of a plain file its last part. Without `.gz`.
        reference: Reference. How to read it.
    """

    location: str
    name: str
    reference: Reference

    def read(self, max_bytes: int) -> bytes:
        """Reads the file, and unpacks it if it is gzip.

        Args:
            max_bytes: Maximum number of bytes, packed and unpacked.

        Returns:
            The unpacked bytes.

        Raises:
            RecordError: The file is missing, unreadable or too large.
            UsageError: The file is compressed otherwise.
        """
        data = self.reference.read(max_bytes)
        command = unpack_command(data[:_MAGIC_BYTES])
        if command == "gunzip":
            return gunzip_within(data, self.location, max_bytes)
        if command:
            message = "of compressed files only gzip is read"
            raise UsageError(
                message, location=self.location, hint=f"{command} {PurePosixPath(self.location).name} first"
            )
        return data

    def text(self) -> bytes:
        """Reads the text.

        Returns:
            The text in UTF-8 without a byte order mark, also if the file has it in UTF-16. Bytes without a mark are
            returned as they are.

        Raises:
            CaptError: The text cannot be read.
        """
        try:
            return convert_to_utf8(self.read(MAX_BYTES))
        except RecordError as error:
            if error.reason == "too large":
                message = f"it holds more than {MAX_BYTES:,} bytes, which are the limit"
                raise CaptError(message, location=self.location, hint="cut it into several files") from error
            message = f"it cannot be read: {error.reason} ({error.detail})"
            raise CaptError(message, location=self.location, hint="fetch the file again") from error
        except UnicodeDecodeError as error:
            message = f"it is not sound {error.encoding.upper()}: {error.reason}"
            raise CaptError(message, location=self.location, hint="fetch the file again") from error

    def json(self) -> Any:
        """Reads the document as JSON.

        Returns:
            The document. Bytes that are not UTF-8 become half surrogate pairs, and numbers of more digits than Python
            converts become infinite, so that either fails one record alone. So does an object with a key twice.

        Raises:
            CaptError: The document cannot be read, or is not JSON.
        """
        data = self.text()
        try:
            text = data.decode(json.detect_encoding(data), "surrogateescape")
            return json.loads(text, parse_int=_parse_int, object_pairs_hook=reject_duplicate_keys)
        except (ValueError, RecursionError) as error:
            raise CaptError(f"not JSON: {error}", location=self.location, hint="fetch the file again") from error

    def lines(self) -> Iterator[Line | FailedRecord]:
        """The lines that are not blank, without their ends: LF, CR LF, or CR alone in a file without LF.

        A line that is not UTF-8, holds a NUL byte, or is longer than `lines.MAX_LINE`, is Malformed.
        """
        data = self.text()
        for number, line in enumerate(split_lines(data, find_line_end(data)), 1):
            yield from decode_line(line, f"{self.location}:{number}")

    def records(self, read: Callable[[Line], _Read | FailedRecord]) -> Iterator[_Read | FailedRecord]:
        """Reads the lines as records.

        Args:
            read: Reads a line. Any exception that it raises fails the line alone.

        Yields:
            A record or Malformed per line that is not blank.
        """
        for line in self.lines():
            yield line if isinstance(line, FailedRecord) else read_record(line.place, partial(read, line))

    def beside(self, names: Iterable[str]) -> Iterator["AnnotationFile"]:
        """The plain files of these names in the document's own directory, as far as they are there."""
        if self.reference.member:
            return
        for name in chain.from_iterable((name, f"{name}{_GZIP}") for name in names):
            other = AnnotationFile(
                _sibling(self.location, name), _unpacked_name(name), Reference(_sibling(self.reference.location, name))
            )
            try:
                other.reference.read(MAX_BYTES)
            except RecordError as error:
                if error.reason == "missing":
                    continue
            yield other


def list_annotation_files(
    names: Sequence[str], pattern: re.Pattern[str], message: str, option: str = "--annotations"
) -> Iterator[AnnotationFile]:
    """The annotation files that a command names.

    Args:
        names: sequence of str. Each a plain file, taken whatever it is called, or a directory, zip or tar, local or at
            an address, of which the files that match are taken, by name.
        pattern: re.Pattern. Searched for in the path within a directory or archive.
        message: str. Such a file as people would write it, `captions_*.json`.
        option: str. The option that names them.

    Raises:
        UsageError: where one is not there, or holds no file that matches.
    """
    for name in names:
        if name.encode(errors="replace").decode() != name:
            raise UsageError("the path is not UTF-8", location=ascii(name), hint="rename it")
        if not name or not (is_uri(name) or Path(name).exists()):
            raise UsageError("no such annotation file", location=name or option, hint=f"check {option}")
        if not is_collection(name):
            yield AnnotationFile(name, _unpacked_name(PurePosixPath(name).name), Reference.from_location(name))
            continue
        found = sorted(
            (one for one in list_files(name) if pattern.search(_unpacked_name(one.name))), key=lambda one: one.name
        )
        if not found:
            raise UsageError(f"it holds no {message}", location=name, hint=f"check {option}")
        twice = [one for one, count in Counter(_unpacked_name(one.name) for one in found).items() if count > 1]
        if twice:
            raise UsageError(f"it holds {twice[0]} both plain and compressed", location=name, hint="remove one of them")
        for one in found:
            yield AnnotationFile(f"{name.rstrip('/')}/{one.name}", _unpacked_name(one.name), one.reference)


def require_annotations(annotations: Sequence[str], kind: str, example: str) -> tuple[str, ...]:
    """The annotations of a kind that cannot do without; UsageError naming an example."""
    if not annotations:
        raise UsageError(f"{kind} needs its annotation files", location="--annotations", hint=f"name {example}, say")
    return tuple(annotations)


def _parse_int(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MOST_DIGITS else math.inf


def _unpacked_name(name: str) -> str:
    return name[: -len(_GZIP)] if name.lower().endswith(_GZIP) else name


def _sibling(path: str, name: str) -> str:
    head, slash, _ = path.rpartition("/")
    return f"{head}{slash}{name}"
