"""Reads CAPTCHAs: images `a0.png`, `a1.png`, …, and a label file with lines `a0 thus`.

    listed files + label lines → image numbers in order → ID, split by position, label | failure

An image's ID is its name without extension. A label line must be an ID, one space or tab, and a label without white
space; any other line fails its image only. Images after the last labeled one have no label, which is not a failure.
`null` is an ordinary label.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from features.text.captcha_names import LabelLine, parse_image_number, parse_label_line, parse_line_number
from features.text.label_rules import ANY_LABEL, LabelRules
from features.text.lines import FailedRecord, Line, decode_lines, find_line_end
from features.text.record_fields import read_record
from pipelines.datasets.annotation_files import AnnotationFile
from pipelines.datasets.base import ImageEntry, ListedImage, ListingReader, build_failed_image
from pipelines.datasets.splits import SplitCounts, check_counts, split_like_published
from schemas.errors import RecordError, UsageError
from schemas.manifests import LabelFormat


@dataclass(frozen=True)
class _Labels:
    """Labels and unusable lines of a label file by image number, and its lines that belong to no image.

    `separators` are the numbers of labels by separator.
    """

    rules: LabelRules
    texts: dict[int, str] = field(default_factory=dict)
    failures: dict[int, FailedRecord] = field(default_factory=dict)
    unassigned: list[FailedRecord] = field(default_factory=list)
    separators: Counter[str] = field(default_factory=Counter)

    @property
    def separator(self) -> Literal[" ", "\t"]:
        """The separator of most labels."""
        return "\t" if self.separators["\t"] > self.separators[" "] else " "

    def add(self, line: Line) -> FailedRecord | None:
        """Adds a line. Returns a failed record if the line belongs to no image."""
        number, labelled = parse_line_number(line.text), parse_label_line(line.text)
        if number is None:
            return line.fail("no id", "expected a0, a1, …")
        if number in self.texts or number in self.failures:
            self.texts.pop(number, None)
            self.failures[number] = line.fail("duplicate id")
        elif labelled:
            self._add_label(line, labelled)
        else:
            self.failures[number] = line.fail(*_explain(line.text))
        return None

    def _add_label(self, line: Line, labelled: LabelLine) -> None:
        try:
            self.texts[labelled.number] = self.rules.apply(labelled.label)
            self.separators[labelled.separator] += 1
        except RecordError as error:
            self.failures[labelled.number] = line.fail(error.reason, error.detail)


class CaptchaReader(ListingReader):
    """Reads a set of CAPTCHAs.

    `document` is the label file. `counts` are images per split, in order; the remaining ones are `unused`. The default
    is 5/7, 1/7 and 1/7.
    """

    def __init__(
        self, document: AnnotationFile, counts: SplitCounts | None = None, rules: LabelRules = ANY_LABEL
    ) -> None:
        self._document = document
        self._counts = counts
        self._rules = rules

    def read_listed_images(self, files: Iterable[ListedImage]) -> Iterator[ImageEntry]:
        """Yields the images by number, then the other files and the label lines without an image, which have failed."""
        numbered: dict[int, list[ListedImage]] = {}
        others: list[ListedImage] = []
        for one in files:
            known = parse_image_number(one.name)
            (others if known is None else numbered.setdefault(known, [])).append(one)
        data = self._document.read_text()
        labels = _read_labels(self._document.location, data, self._rules)
        label_format = LabelFormat(separator=labels.separator, line_end=find_line_end(data))
        self.label_format = None if label_format == LabelFormat() else label_format
        labelled = labels.texts.keys() | labels.failures.keys()
        numbers = sorted(numbered.keys() | labelled)
        counts = self._count_splits(len(numbers))
        last = max(numbered.keys() & labelled, default=-1)
        for position, number in enumerate(numbers):
            found = numbered.get(number, [ListedImage(f"a{number}.png")])
            failure = labels.failures.get(number) or _check_single(found)
            if not failure and number <= last and number not in labels.texts:
                failure = FailedRecord(self._document.location, "no label", f"no line has the ID a{number}")
            split, first, label = counts.assign(position), found[0], labels.texts.get(number, "")
            yield ImageEntry(f"a{number}", first.name, split, label=label, failure=failure, root=first.root)
        for one in others:
            failure = FailedRecord(one.name, "name", "expected a0.png, a1.png, …")
            yield ImageEntry(one.name, one.name, failure=failure, root=one.root)
        yield from map(build_failed_image, labels.unassigned)

    def _count_splits(self, images: int) -> SplitCounts:
        return check_counts(self._counts or split_like_published(images), images)


def _read_labels(location: str, data: bytes, rules: LabelRules) -> _Labels:
    labels = _Labels(rules)
    for line in decode_lines(data, location):
        failure = line if isinstance(line, FailedRecord) else read_record(line.location, partial(labels.add, line))
        if failure:
            labels.unassigned.append(failure)
    if not (labels.texts or labels.failures or labels.unassigned):
        raise UsageError("the file contains no label", location=location, hint="Check --labels.")
    return labels


def _explain(line: str) -> tuple[str, str]:
    """Returns why a line that begins with an ID is not a label: reason and detail."""
    fields = line.split()
    if len(fields) == 1 and parse_line_number(fields[0]) is not None and fields[0].isalnum():
        return "no word", ""
    return "separator", "expected an ID, one space or tab, and a label"


def _check_single(files: list[ListedImage]) -> FailedRecord | None:
    if len(files) < 2:
        return None
    one, other = ("/".join(filter(None, (file.root, file.name))) for file in files[:2])
    return FailedRecord(one, "two files", f"the other is {other}")
