"""Finds and reads annotation files: plain files, or members of directories and archives, local or remote."""

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, TypeVar

from features.inputs import FileReference, is_collection, list_files
from features.inputs.compression import find_unpack_command, gunzip_within
from features.io.uris import is_uri
from pipelines.datasets.base import DatasetReader, FailedRecord
from pipelines.datasets.lines import Line, convert_to_utf8, decode_line, find_line_end, split_lines
from pipelines.datasets.record_fields import read_record, reject_duplicate_keys
from schemas.errors import CaptError, RecordError, UsageError

MAX_BYTES = 2 << 30

_GZIP = ".gz"
_MAGIC_BYTES = 16
_MAX_DIGITS = 1000
_FETCH_AGAIN = "Download the file again."

_Read = TypeVar("_Read")


@dataclass(frozen=True)
class AnnotationFile:
    """One annotation file.

    Args:
        location: The path or URI that the user named, and the path within it, for messages.
        name: Path within the directory or archive, with slashes and without `.gz`; the file name of a plain file.
        reference: Reference to read the file by.
    """

    location: str
    name: str
    reference: FileReference

    def read_bytes(self, max_bytes: int) -> bytes:
        """Reads the file, and decompresses it if it is gzip.

        Args:
            max_bytes: Maximum number of bytes, compressed and decompressed.

        Raises:
            RecordError: The file is missing, unreadable or too large.
            UsageError: The file has another compression.
        """
        data = self.reference.read(max_bytes)
        command = find_unpack_command(data[:_MAGIC_BYTES])
        if command == "gunzip":
            return gunzip_within(data, self.location, max_bytes)
        if command:
            message = "the file is compressed, and only gzip is supported"
            hint = f"Run `{command} {PurePosixPath(self.location).name}` first."
            raise UsageError(message, location=self.location, hint=hint)
        return data

    def read_text(self) -> bytes:
        """Reads the text as UTF-8 without a byte order mark. Bytes without a mark are returned unchanged.

        Raises:
            CaptError: The text cannot be read.
        """
        try:
            return convert_to_utf8(self.read_bytes(MAX_BYTES))
        except RecordError as error:
            if error.reason == "too large":
                message = f"the file is larger than the limit of {MAX_BYTES:,} bytes"
                raise CaptError(message, location=self.location, hint="Split the file into several files.") from error
            message = f"the file cannot be read: {error.reason} ({error.detail})"
            raise CaptError(message, location=self.location, hint=_FETCH_AGAIN) from error
        except UnicodeDecodeError as error:
            message = f"invalid {error.encoding.upper()}: {error.reason}"
            raise CaptError(message, location=self.location, hint=_FETCH_AGAIN) from error

    def read_json(self) -> Any:
        """Reads the file as JSON.

        Three faults fail one record only: bytes that are not UTF-8 become unpaired surrogates, integers of too many
        digits become infinite, and an object with a duplicate key becomes a `DuplicateKey`.

        Raises:
            CaptError: The file cannot be read, or is not JSON.
        """
        data = self.read_text()
        try:
            text = data.decode(json.detect_encoding(data), "surrogateescape")
            return json.loads(text, parse_int=_parse_int, object_pairs_hook=reject_duplicate_keys)
        except (ValueError, RecursionError) as error:
            raise CaptError(f"not JSON: {error}", location=self.location, hint=_FETCH_AGAIN) from error

    def read_lines(self) -> Iterator[Line | FailedRecord]:
        """Yields the lines that are not blank, without their ends: LF, CR LF, or CR in a file without LF.

        A line that is not UTF-8, contains a NUL byte, or is longer than `lines.MAX_LINE`, is a failed record.
        """
        data = self.read_text()
        for number, line in enumerate(split_lines(data, find_line_end(data)), 1):
            yield from decode_line(line, f"{self.location}:{number}")

    def read_records(self, read: Callable[[Line], _Read | FailedRecord]) -> Iterator[_Read | FailedRecord]:
        """Yields the result of `read` for each line. An exception of `read` fails its line only."""
        for line in self.read_lines():
            yield line if isinstance(line, FailedRecord) else read_record(line.location, partial(read, line))

    def find_siblings(self, names: Iterable[str]) -> Iterator["AnnotationFile"]:
        """Yields the existing files of these names in the directory of this plain file."""
        if self.reference.member:
            return
        for name in chain.from_iterable((name, f"{name}{_GZIP}") for name in names):
            location, reference = (_replace_name(path, name) for path in (self.location, self.reference.location))
            other = AnnotationFile(location, _remove_gzip_suffix(name), FileReference(reference))
            try:
                other.reference.read(MAX_BYTES)
            except RecordError as error:
                if error.reason == "missing":
                    continue
            yield other


class AnnotationReader(DatasetReader):
    """Reads a format that consists of annotation files.

    Attributes:
        dataset_type: Value of `--dataset-type`, for messages.
        pattern: Regular expression that is searched for in paths within a directory or archive.
        pattern_text: The pattern as a user would write it, such as `captions_*.json`.
        example: Example of `--annotations`.
    """

    dataset_type: ClassVar[str]
    pattern: ClassVar[re.Pattern[str]]
    pattern_text: ClassVar[str]
    example: ClassVar[str]

    def __init__(self, annotations: Sequence[str]) -> None:
        if not annotations:
            message = f"dataset type {self.dataset_type} needs annotation files"
            raise UsageError(message, location="--annotations", hint=f"Use {self.example}, for example.")
        self.annotations = tuple(annotations)

    def list_documents(self) -> Iterator[AnnotationFile]:
        """Yields the annotation files."""
        return list_annotation_files(self.annotations, self.pattern, self.pattern_text)


def list_annotation_files(
    names: Sequence[str], pattern: re.Pattern[str], pattern_text: str, option: str = "--annotations"
) -> Iterator[AnnotationFile]:
    """Yields the annotation files that a command names.

    Args:
        names: Plain files of any name, or directories, zips and tars, whose files that match are used in order of name.
        pattern: Regular expression that is searched for in the path within a directory or archive.
        pattern_text: The pattern as a user would write it, such as `captions_*.json`.
        option: The option that names the files.

    Raises:
        UsageError: A name does not exist, or contains no matching file.
    """
    for name in names:
        if name.encode(errors="replace").decode() != name:
            raise UsageError("the path is not UTF-8", location=ascii(name), hint="Rename the file.")
        if not name or not (is_uri(name) or Path(name).exists()):
            raise UsageError("no such annotation file", location=name or option, hint=f"Check {option}.")
        if not is_collection(name):
            yield AnnotationFile(name, _remove_gzip_suffix(PurePosixPath(name).name), FileReference.from_location(name))
            continue
        listed = (one for one in list_files(name) if pattern.search(_remove_gzip_suffix(one.name)))
        found = sorted(listed, key=lambda one: one.name)
        if not found:
            raise UsageError(f"contains no {pattern_text}", location=name, hint=f"Check {option}.")
        twice = [one for one, count in Counter(_remove_gzip_suffix(one.name) for one in found).items() if count > 1]
        if twice:
            raise UsageError(f"contains {twice[0]} plain and compressed", location=name, hint="Remove one of them.")
        for one in found:
            yield AnnotationFile(f"{name.rstrip('/')}/{one.name}", _remove_gzip_suffix(one.name), one.reference)


def _parse_int(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else math.inf


def _remove_gzip_suffix(name: str) -> str:
    return name[: -len(_GZIP)] if name.lower().endswith(_GZIP) else name


def _replace_name(path: str, name: str) -> str:
    head, slash, _ = path.rpartition("/")
    return f"{head}{slash}{name}"
