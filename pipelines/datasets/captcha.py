"""CAPTCHAs: pictures `a0.png`, `a1.png`, … of words, and the words of the first of them in lines `a0 thus`.

    names found + labels → numbers, in order → id, split by position, word | why it has failed

An image's id is its name without extension. Labels are taken as they are or not at all: a line that is not an id, one
space and letters a–z costs its image alone. Images after the last that has a label have none, and that is no fault.
`null` is a word.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

from features.synthetic.captchas.image_names import parse_image_number, parse_label_line, parse_line_number
from pipelines.datasets.annotation_files import AnnotationFile, list_annotation_files
from pipelines.datasets.base import CaptionEntry, FailedRecord, ImageEntry, ListedImage, build_failed_image
from pipelines.datasets.lines import Line
from pipelines.datasets.record_reader import read_record
from pipelines.datasets.splits import SplitCounts, split_like_published
from schemas.errors import UsageError

_FILES = re.compile(r"(^|/)spec_train_val\.txt$")
_EXAMPLE = "spec_train_val.txt"
_LETTERS = re.compile(r"[A-Za-z]+")


@dataclass(frozen=True)
class Labels:
    """What a file of labels says.

    Args:
        words: dict. The words, by the numbers of their images.
        faults: dict. Lines of images that tell no word, by their numbers.
        strays: list of Malformed. Lines of no image.
    """

    words: dict[int, str] = field(default_factory=dict)
    faults: dict[int, FailedRecord] = field(default_factory=dict)
    strays: list[FailedRecord] = field(default_factory=list)

    def add(self, line: Line) -> FailedRecord | None:
        """Adds a line.

        Args:
            line: The line.

        Returns:
            The line as a failed record if it belongs to no image; else None.
        """
        number = parse_line_number(line.text)
        if number is None:
            return line.malformed("no id", "expected a0, a1, …")
        self._add(number, line)
        return None

    def _add(self, number: int, line: Line) -> None:
        labelled = parse_label_line(line.text)
        if number in self.words or number in self.faults:
            self.words.pop(number, None)
            self.faults[number] = line.malformed("doubled id")
        elif labelled:
            self.words[number] = labelled[1]
        else:
            self.faults[number] = line.malformed(*_wrong(line.text))

    @property
    def numbers(self) -> set[int]:
        """The images that have a line."""
        return self.words.keys() | self.faults.keys()


class CaptchaReader:
    """A set of CAPTCHAs.

    Args:
        labels: str. The file of labels, or a directory or archive that holds `spec_train_val.txt`.
        counts: SplitCounts or None. Images by split, in order, and the others are `unused`; None for the published
            shares, 5/7, 1/7 and 1/7.

    Raises:
        UsageError: there is no such file, or there are several.
    """

    max_failures = "5%"

    def __init__(self, labels: str, counts: SplitCounts | None = None) -> None:
        found = list(list_annotation_files([labels], _FILES, _EXAMPLE, option="--labels"))
        if len(found) > 1:
            names = ", ".join(one.name for one in found)
            raise UsageError(f"several files of labels: {names}", location=labels, hint="name one of them")
        self._document = found[0]
        self._counts = counts

    def images(self) -> Iterator[ImageEntry]:
        """None: files and labels together say which there are."""
        return iter(())

    def captions(self) -> Iterator[CaptionEntry | FailedRecord]:
        """None."""
        return iter(())

    def images_among(self, files: Iterable[ListedImage]) -> Iterator[ImageEntry]:
        """The images, by number; then the files that are none, and the lines of labels that tell of none.

        Raises:
            UsageError: there is no label, or the splits take more images than there are.
        """
        numbered, others = _numbered(files)
        labels = read_labels(self._document)
        numbers = sorted(numbered.keys() | labels.numbers)
        counts = self._counts_of(len(numbers))
        last = max(numbered.keys() & labels.numbers, default=-1)
        for position, number in enumerate(numbers):
            found = numbered.get(number, [ListedImage(f"a{number}.png")])
            fault = labels.faults.get(number) or _twofold(found)
            if not fault and number <= last and number not in labels.words:
                fault = FailedRecord(self._document.location, "no label", f"no line tells the word of a{number}")
            word = labels.words.get(number, "")
            split, (name, root) = counts.split_of(position), found[0]
            yield ImageEntry(f"a{number}", name, split, label=word, fault=fault, root=root)
        for name, root in others:
            fault = FailedRecord(name, "name", "an image here is called a0.png, a1.png, …")
            yield ImageEntry(name, name, fault=fault, root=root)
        for stray in labels.strays:
            yield build_failed_image(stray)

    def _counts_of(self, images: int) -> SplitCounts:
        counts = self._counts or split_like_published(images)
        if sum(counts) > images:
            message = f"the splits take {sum(counts):,} images, and there are {images:,}"
            raise UsageError(message, location="--split-sizes", hint="give fewer")
        return counts


def read_labels(document: AnnotationFile) -> Labels:
    """The labels of a file; UsageError where it has none."""
    labels = Labels()
    for line in document.lines():
        stray = line if isinstance(line, FailedRecord) else read_record(line.place, partial(labels.add, line))
        if stray:
            labels.strays.append(stray)
    if not (labels.numbers or labels.strays):
        raise UsageError("there is no label in it", location=document.location, hint="check --labels")
    return labels


def _wrong(line: str) -> tuple[str, str]:
    """Reason and explanation of a line that begins with an id and is no label."""
    fields = line.split()
    if len(fields) == 1 and parse_line_number(fields[0]) is not None and fields[0].isalnum():
        return "no word", ""
    if len(fields) != 2 or line != " ".join(fields):
        return "separator", "expected an id, one space and a word"
    return ("upper case" if _LETTERS.fullmatch(fields[1]) else "not a-z"), "expected a-z"


def _numbered(found: Iterable[ListedImage]) -> tuple[dict[int, list[ListedImage]], list[ListedImage]]:
    """The images' files by their numbers, and other images."""
    files: dict[int, list[ListedImage]] = {}
    others = []
    for one in found:
        number = parse_image_number(one.name)
        if number is None:
            others.append(one)
        else:
            files.setdefault(number, []).append(one)
    return files, others


def _twofold(files: list[ListedImage]) -> FailedRecord | None:
    if len(files) < 2:
        return None
    one, other = ("/".join(filter(None, (root, name))) for name, root in files[:2])
    return FailedRecord(one, "two files", f"so is {other}")
