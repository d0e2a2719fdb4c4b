"""Reads sets of images with text in them, with labels from file names, from a table, or from a list.

    listed files + pattern         → ID (path), label from the file name | failure
    rows of a table                → ID (name in the table), label, split | failure
    listed files + lines in order  → ID (path), label of the line | failure

What cannot be a label (`features.text.label_rules`) fails its image only.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from features.inputs.archives import has_escaped_bytes
from features.inputs.image_files import is_image_name
from features.inputs.image_names import normalize_name
from features.inputs.label_files import LabelColumns, LabelRow, read_label_list, read_label_table
from features.inputs.natural_order import find_gap, natural_key, read_numbers
from features.text.label_rules import LabelRules
from features.text.lines import FailedRecord, Line
from pipelines.datasets.annotation_files import AnnotationFile
from pipelines.datasets.base import (
    CaptionEntry,
    DatasetReader,
    ImageEntry,
    ListedImage,
    ListingReader,
    build_failed_image,
)
from pipelines.datasets.splits import SplitCounts, check_counts
from schemas.errors import RecordError, UsageError

_PATTERN_OPTION = "--label-pattern"
_LABELS_OPTION = "--labels"
_SEPARATOR = re.compile(r"[ \t,;]")
_STEM = re.compile(r"(?P<label>.*)", re.DOTALL)

_UNKNOWN_NAME = "Its encoding is unknown, so the label is. Rename the file in UTF-8, and pack an archive again"

_log = logging.getLogger("capt.labels")


def parse_label_pattern(text: str | None) -> re.Pattern[str]:
    """Returns the pattern of `--label-pattern`, by default the whole name; UsageError for an invalid one."""
    if text is None:
        return _STEM
    hint = r"Write (?P<label>.+)-\d+ for abc-0.png, for example."
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise UsageError(f"not a regular expression: {error}", location=_PATTERN_OPTION, hint=hint) from None
    if "label" not in pattern.groupindex:
        raise UsageError(f"{text!r} has no group named label", location=_PATTERN_OPTION, hint=hint)
    return pattern


class FileNameReader(ListingReader):
    """Reads images whose names contain their labels. The pattern must match the name without directory and suffix."""

    def __init__(self, pattern: re.Pattern[str], rules: LabelRules, counts: SplitCounts | None = None) -> None:
        self._pattern = pattern
        self._rules = rules
        self._counts = counts

    def read_listed_images(self, files: Iterable[ListedImage]) -> Iterator[ImageEntry]:
        """Yields every image with the label in its name."""
        for one, split in _assign_by_position(files, self._counts):
            try:
                label, failure = self._rules.apply(self._match(one)), None
            except RecordError as error:
                label, failure = "", FailedRecord(one.name, error.reason, error.detail)
            yield ImageEntry(one.name, one.name, split, label=label, failure=failure, root=one.root)

    def _match(self, image: ListedImage) -> str:
        stem = _remove_suffix(PurePosixPath(image.name).name)
        # Every encoding of names has the ASCII characters.
        if not image.has_known_name and (has_escaped_bytes(stem) or not stem.isascii()):
            raise RecordError("parse", "name is not UTF-8", f"{image.name!r}. {_UNKNOWN_NAME}")
        match = self._pattern.fullmatch(stem)
        if match is None:
            raise RecordError("parse", "no match", f"{stem!r} does not match {_PATTERN_OPTION} {self._pattern.pattern}")
        return match["label"] or ""


class LabelListReader(ListingReader):
    """Reads images in the order of their names, and their labels from the lines of a file, one per line."""

    def __init__(self, document: AnnotationFile, rules: LabelRules, counts: SplitCounts | None = None) -> None:
        self._document = document
        self._rules = rules
        self._counts = counts

    def read_listed_images(self, files: Iterable[ListedImage]) -> Iterator[ImageEntry]:
        """Yields every image with its line. Images after the last line have no label, which is not a failure."""
        lines = read_label_list(self._document.read_text(), self._document.location)
        ordered = sorted(files, key=_order)
        self._check_order([one.name for one in ordered], lines)
        for number, (one, split) in enumerate(_assign_by_position(ordered, self._counts), 1):
            label, failure = self._read(lines.get(number), number) if number <= max(lines) else ("", None)
            yield ImageEntry(one.name, one.name, split, label=label, failure=failure, root=one.root)

    def _read(self, line: Line | FailedRecord | None, number: int) -> tuple[str, FailedRecord | None]:
        if line is None:
            return "", FailedRecord(f"{self._document.location}:{number}", "no label", "the line is blank")
        if isinstance(line, FailedRecord):
            return "", line
        try:
            return self._rules.apply(line.text), None
        except RecordError as error:
            return "", FailedRecord(line.location, error.reason, error.detail)

    def _check_order(self, names: Sequence[str], lines: Mapping[int, Line | FailedRecord]) -> None:
        """Raises UsageError if it is uncertain which line belongs to which image."""
        location, count = self._document.location, max(lines)
        if count > len(names):
            message = f"the file has {count:,} lines with one label each, and there are {len(names):,} images"
            hint = "Write a table with the columns image and label (.csv), or the missing images."
            raise UsageError(message, location=location, hint=hint)
        stems = {_remove_suffix(PurePosixPath(name).name) for name in names}
        first = [_SEPARATOR.split(line.text, maxsplit=1) for line in lines.values() if isinstance(line, Line)]
        if 2 * sum(len(parts) > 1 and parts[0] in stems for parts in first) > len(first):
            message = "the lines begin with names of images, so they are not labels"
            raise UsageError(message, location=location, hint="Write a table with the columns image and label (.csv).")
        gap = find_gap(read_numbers(names) or ())
        if gap:
            message = f"the image numbers go from {gap[0]} to {gap[1]}, so the lines may belong to other images"
            raise UsageError(message, location=location, hint="Write a table with the columns image and label (.csv).")
        if count < len(names):
            _log.warning("%s: the last %d of %d images have no label.", location, len(names) - count, len(names))


class LabelTableReader(DatasetReader):
    """Reads the images that a table names, each in one row with its label and optionally its split.

    Without `uses_splits`, the column split is ignored, because options assign the splits.
    """

    def __init__(
        self,
        document: AnnotationFile,
        columns: LabelColumns,
        rules: LabelRules,
        counts: SplitCounts | None = None,
        *,
        uses_splits: bool = True,
    ) -> None:
        self._document = document
        self._columns = columns
        self._rules = rules
        self._counts = counts
        self._uses_splits = uses_splits

    def read_images(self) -> Iterator[ImageEntry]:
        """Yields the images in the order of their first rows. An image with several rows has failed."""
        data = self._document.read_text()
        table = read_label_table(self._document.name, data, self._document.location, self._columns)
        rows: dict[str, LabelRow] = {}
        repeated: dict[str, LabelRow] = {}
        for row in table.rows:
            if isinstance(row, FailedRecord):
                yield build_failed_image(row)
                continue
            name = normalize_name(row.image)
            if name in rows:
                repeated.setdefault(name, row)
            else:
                rows[name] = row
        counts = check_counts(self._counts, len(rows)) if self._counts else None
        for position, (name, row) in enumerate(rows.items()):
            label, split, failure = self._read(row, repeated.get(name))
            split = counts.assign(position) if counts else split
            yield ImageEntry(row.image, row.image, split, label=label, failure=failure)

    def read_captions(self) -> Iterator[CaptionEntry | FailedRecord]:
        return iter(())

    def _read(self, row: LabelRow, other: LabelRow | None) -> tuple[str, str | None, FailedRecord | None]:
        """Returns label, split and failure of the row of an image; `other` is a second row of this image."""
        if other:
            return "", None, FailedRecord(other.location, "duplicate id", f"{row.location} names {row.image}, too")
        try:
            return self._rules.apply(row.label), row.read_split() if self._uses_splits else None, None
        except RecordError as error:
            return "", None, FailedRecord(row.location, error.reason, error.detail)


def _assign_by_position(
    files: Iterable[ListedImage], counts: SplitCounts | None
) -> Iterator[tuple[ListedImage, str | None]]:
    """Yields images with their splits: by position in natural order, or None without counts."""
    if counts is None:
        yield from ((one, None) for one in files)
        return
    ordered = sorted(files, key=_order)
    check_counts(counts, len(ordered))
    yield from ((one, counts.assign(position)) for position, one in enumerate(ordered))


def _order(file: ListedImage) -> tuple[tuple[str | int, ...], str, str]:
    return *natural_key(file.name), file.root


def _remove_suffix(name: str) -> str:
    """Returns a file name without its suffix, if that is the suffix of an image."""
    return PurePosixPath(name).stem if is_image_name(name) else name
