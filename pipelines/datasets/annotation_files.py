"""Finds and reads annotation files: plain files, or members of directories and archives, local or remote."""

import json
import math
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path, PurePosixPath
from reprlib import repr as abbreviate
from typing import Any, ClassVar, TypeVar

from features.inputs import FileReference, is_collection, list_files
from features.inputs.archives import find_unpack_command, gunzip_within
from features.io.uris import is_uri
from features.text.byte_order_marks import convert_to_utf8
from features.text.lines import FailedRecord, Line, decode_lines
from features.text.record_fields import DuplicateKey, read_record, reject_duplicate_keys
from pipelines.datasets.base import CaptionEntry, DatasetReader, ImageEntry, build_failed_image
from schemas.errors import CaptError, RecordError, UsageError

MAX_BYTES = 2 << 30

_GZIP = ".gz"
_MAGIC_BYTES = 16
_MAX_DIGITS = 1000
_FETCH_AGAIN = "Download the file again."

_Read = TypeVar("_Read")


@dataclass(frozen=True)
class AnnotationFile:
    """One annotation file. `location` is its path or URI as the user named it, and the path within it, for messages.

    `name` is its path within the directory or archive, without `.gz`; the file name of a plain file.
    """

    location: str
    name: str
    reference: FileReference

    def read_bytes(self, max_bytes: int) -> bytes:
        """Reads the file, and decompresses it if it is gzip, to at most `max_bytes` bytes.

        RecordError if the file is missing, unreadable or too large; UsageError if it has another compression.
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
        """Reads the text as UTF-8; without a byte order mark, its bytes unchanged. CaptError if it is unreadable."""
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
        """Reads the file as JSON. Raises CaptError if it is not.

        Three faults fail one record only: bytes that are not UTF-8 become unpaired surrogates, integers of too many
        digits become infinite, and an object with a duplicate key becomes a `DuplicateKey`.
        """
        data = self.read_text()
        try:
            text = data.decode(json.detect_encoding(data), "surrogateescape")
            return json.loads(text, parse_int=_parse_int, object_pairs_hook=reject_duplicate_keys)
        except (ValueError, RecursionError) as error:
            raise CaptError(f"not JSON: {error}", location=self.location, hint=_FETCH_AGAIN) from error

    def read_list(self, key: str, hint: str) -> Iterator[tuple[str, Any]]:
        """Yields the items of a list in the file's JSON object, each with its location. CaptError without the list."""
        data = self.read_json()
        if isinstance(data, DuplicateKey):
            message = f"duplicate key {abbreviate(data.key)}"
            raise CaptError(message, location=self.location, hint="Keep one of the two.")
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise CaptError(f"the list {key!r} is missing", location=self.location, hint=hint)
        for number, record in enumerate(data[key]):
            yield f"{self.location}: {key}[{number}]", record

    def read_image_list(self, read: Callable[[Any], ImageEntry], hint: str) -> Iterator[ImageEntry]:
        """Yields the result of `read` for each item of the list `images`. An item that cannot be read has failed."""
        for location, image in self.read_list("images", hint):
            entry = read_record(location, partial(read, image))
            found = build_failed_image(entry) if isinstance(entry, FailedRecord) else entry
            yield found._replace(location=location)

    def read_lines(self) -> Iterator[Line | FailedRecord]:
        yield from decode_lines(self.read_text(), self.location)

    def read_records(self, read: Callable[[Line], _Read | FailedRecord]) -> Iterator[_Read | FailedRecord]:
        """Yields the result of `read` for each line. An exception of `read` fails its line only."""
        for line in self.read_lines():
            yield line if isinstance(line, FailedRecord) else read_record(line.location, partial(read, line))

    def find_siblings(self, names: Iterable[str]) -> Iterator["AnnotationFile"]:
        """Yields the existing files of these names in the directory of this plain file."""
        if self.reference.member:
            return
        directory, location = (path.rpartition("/") for path in (self.location, self.reference.location))
        for name in chain.from_iterable((name, f"{name}{_GZIP}") for name in names):
            reference = FileReference(f"{location[0]}{location[1]}{name}")
            other = AnnotationFile(f"{directory[0]}{directory[1]}{name}", remove_gzip_suffix(name), reference)
            try:
                other.reference.read(MAX_BYTES)
            except RecordError as error:
                if error.reason == "missing":
                    continue
            yield other


class AnnotationReader(DatasetReader):
    """Reads a format that consists of annotation files. A subclass reads the images and the captions of one file.

    Attributes:
        dataset_type: Value of `--dataset-type`, for messages.
        pattern: Regular expression that is searched for in paths within a directory or archive.
        pattern_text: The pattern as a user would write it, such as `captions_*.json`.
        example: Example of `--annotations`.
        additions: Regular expression of those files that are read only with others; None if there are none.
    """

    dataset_type: ClassVar[str]
    pattern: ClassVar[re.Pattern[str]]
    pattern_text: ClassVar[str]
    example: ClassVar[str]
    additions: ClassVar[re.Pattern[str] | None] = None

    def __init__(self, annotations: Sequence[str]) -> None:
        if not annotations:
            message = f"dataset type {self.dataset_type} needs annotation files"
            raise UsageError(message, location="--annotations", hint=f"Use {self.example}, for example.")
        self.annotations = tuple(annotations)
        self._caption_counts = Counter[str]()

    @abstractmethod
    def read_file_images(self, document: AnnotationFile) -> Iterator[ImageEntry]:
        """Yields the images that one annotation file names."""

    @abstractmethod
    def read_file_captions(self, document: AnnotationFile) -> Iterator[CaptionEntry | FailedRecord]:
        """Yields the captions of one annotation file, and its records that cannot be read."""

    def choose_documents(self, path: str, found: list[AnnotationFile]) -> list[AnnotationFile]:
        """Returns those of the annotation files in one of `--annotations` that are read."""
        return found

    def list_documents(self) -> Iterator[AnnotationFile]:
        for path in self.annotations:
            found = list_annotation_files([path], self.pattern, self.pattern_text)
            yield from self.choose_documents(path, list(found))

    def read_images(self) -> Iterator[ImageEntry]:
        for document in self.list_documents():
            for one in self.read_file_images(document):
                yield one._replace(document=document.location)

    def read_captions(self) -> Iterator[CaptionEntry | FailedRecord]:
        self._caption_counts.clear()
        for document in self.list_documents():
            for one in self.read_file_captions(document):
                yield one if isinstance(one, FailedRecord) else one._replace(document=document.location)
        self._caption_counts.clear()  # a counter of every image

    def number_caption(self, image_id: str) -> str:
        """Returns the number of the next caption of an image, from 0 in each `read_captions`."""
        self._caption_counts[image_id] += 1
        return str(self._caption_counts[image_id] - 1)


def list_annotation_files(
    names: Sequence[str], pattern: re.Pattern[str], pattern_text: str, option: str = "--annotations"
) -> Iterator[AnnotationFile]:
    """Yields the annotation files that `option` names. The patterns are those of an `AnnotationReader`.

    A name is a plain file of any name, or a directory, zip or tar, whose files that match are used in order of name.
    UsageError if a name does not exist, or contains no matching file.
    """
    for name in names:
        if name.encode(errors="replace").decode() != name:
            raise UsageError("the path is not UTF-8", location=ascii(name), hint="Rename the file.")
        if not name or not (is_uri(name) or Path(name).exists()):
            raise UsageError("no such annotation file", location=name or option, hint=f"Check {option}.")
        if not is_collection(name):
            yield AnnotationFile(name, remove_gzip_suffix(PurePosixPath(name).name), FileReference.from_location(name))
            continue
        listed = (one for one in list_files(name) if pattern.search(remove_gzip_suffix(one.name)))
        found = sorted(listed, key=lambda one: one.name)
        if not found:
            raise UsageError(f"the path contains no {pattern_text}", location=name, hint=f"Check {option}.")
        twice = [one for one, count in Counter(remove_gzip_suffix(one.name) for one in found).items() if count > 1]
        if twice:
            raise UsageError(
                f"the path contains {twice[0]} plain and compressed", location=name, hint="Remove one of them."
            )
        for one in found:
            yield AnnotationFile(f"{name.rstrip('/')}/{one.name}", remove_gzip_suffix(one.name), one.reference)


def _parse_int(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else math.inf


def remove_gzip_suffix(name: str) -> str:
    """Returns the name of a file without `.gz`."""
    return name[: -len(_GZIP)] if name.lower().endswith(_GZIP) else name
