"""Reads the first records of paths with the reader of a dataset type, as `capt prepare` would read them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import PurePosixPath
from typing import NamedTuple

from features.inputs.image_names import normalize_name
from features.text.lines import FailedRecord
from pipelines.datasets import get_columns, open_reader
from pipelines.datasets.annotation_files import AnnotationReader
from pipelines.datasets.base import (
    CaptionEntry,
    DatasetReader,
    EmbeddedReader,
    ImageEntry,
    ListedImage,
    ListingReader,
)
from pipelines.datasets.label_sources import open_label_reader
from pipelines.datasets.labelled_images import LabelListReader
from pipelines.inspection.contents import Contents
from pipelines.inspection.excerpt import Excerpt
from pipelines.inspection.problems import Problems
from schemas.errors import CaptError, UsageError
from schemas.options.data import Inspect
from schemas.options.prepare import PrepareCaptcha

# Values of `dataset_type` of which `--dataset-type` has none.
CAPTCHA = "captcha"
ARRAYS = "arrays"

_MAX_RECORDS = 200  # of which at least half must be readable
_MAX_CAPTIONS = 1_000_000


@dataclass(frozen=True)
class Record:
    """An image as a reader reads it, with its captions or label.

    `found` is whether the image file is among the listed files; None if this is unknown.
    """

    image: str
    split: str | None = None
    captions: tuple[str, ...] = ()
    label: str | None = None
    problem: str = ""
    found: bool | None = None


class UnreadableCaptions(NamedTuple):
    """Number of unreadable captions among the first ones, number of these, and the first problem."""

    unreadable: int
    read: int
    problem: str


class FirstRecords:
    """Reads the beginning of a dataset with any reader. `problems` are those of the readers that do not fit."""

    def __init__(self, options: Inspect, contents: Sequence[Contents], excerpt: Excerpt, problems: Problems) -> None:
        self.options, self.contents, self.excerpt, self.problems = options, contents, excerpt, problems
        self.unreadable: dict[str, UnreadableCaptions] = {}  # by dataset type
        self.columns = get_columns(options)

    @property
    def image_contents(self) -> list[Contents]:
        """The directories, archives and prefixes with images."""
        return [one for one in self.contents if one.may_have_images]

    @property
    def listed_images(self) -> list[Contents]:
        """Those of which images were listed."""
        return [one for one in self.image_contents if one.images]

    @property
    def image_roots(self) -> tuple[str, ...]:
        return tuple(one.path for one in self.image_contents)

    def read(self, dataset_type: str, path: str, copy: Callable[[], Sequence[str]]) -> tuple[Record, ...]:
        """Returns the first records that a dataset type reads in copies of a path; none if it does not fit."""
        try:
            self._check_options(dataset_type, ("label_column",))
            reader = open_reader(dataset_type, copy(), columns=self.columns, caption_fields=self.options.caption_field)
            return self._read_records(reader, dataset_type)
        except CaptError as error:
            self.refuse(path, error, dataset_type)
        return ()

    def read_labels(self, path: str, copy: Callable[[], tuple[Sequence[str], str | None]]) -> tuple[Record, ...]:
        """Returns the first images with labels in a path, given copies of `--images` and `--labels`.

        Returns none if the labels do not fit, or have white space, as captions have.
        """
        try:
            self._check_options(CAPTCHA, ("caption_column", "id_column", "group_column", "caption_field"))
            found = list(islice(self._read_labelled(*copy()), _MAX_RECORDS))
        except CaptError as error:
            self.refuse(path, error, CAPTCHA)
            return ()
        usable = [one for one in found if one.failure is None and one.label]
        if 2 * len(usable) < max(1, len(found)) or any(len(one.label.split()) > 1 for one in usable):
            return ()
        first = found[: self.options.num_examples]
        return tuple(self._build_record(one, label=None if one.failure else one.label) for one in first)

    def _read_labelled(self, images: Sequence[str], labels: str | None) -> Iterator[ImageEntry]:
        own = self.options
        options = PrepareCaptcha(
            store="S",
            images=tuple(images) or (".",),  # not read if there are none
            labels=labels,
            image_column=own.image_column,
            label_column=own.label_column,
            split_column=own.split_column,
        )
        reader = open_label_reader(options, None)
        if isinstance(reader, LabelListReader) and not all(one.is_complete for one in self.image_contents):
            problem = "the labels are in the order of the images, of which only the first were listed"
            raise CaptError(problem, location=labels or "", hint="Run `capt prepare captcha --dry-run`.")
        if isinstance(reader, ListingReader):
            return reader.read_listed_images(self._list_images())
        return reader.read_images()

    def check_files(self, dataset_type: str, annotations: Sequence[str]) -> bool:
        """Returns whether a dataset type reads these annotation files together, such as those of one year of COCO."""
        reader = open_reader(dataset_type, annotations)
        assert isinstance(reader, AnnotationReader)
        try:
            documents = list(reader.list_documents())
            for directory in {one.location.rpartition("/")[0] for one in documents}:
                found = [one for one in documents if one.location.rpartition("/")[0] == directory]
                own = [one for one in found if one.location not in self.options.paths]
                reader.choose_documents(directory, own)
        except CaptError as error:
            for path in annotations:
                self.refuse(path, error, dataset_type)
            return False
        return True

    def list_classes(self, copies: Sequence[str]) -> list[str]:
        """Returns the classes of images in copies of directories."""
        captions = islice(open_reader("imagefolder", copies).read_captions(), _MAX_CAPTIONS)
        return sorted({one.caption for one in captions if isinstance(one, CaptionEntry)})

    def _check_options(self, dataset_type: str, others: Sequence[str]) -> None:
        """Raises UsageError if the user has given an option that the command of a type does not have."""
        for name in others:
            if getattr(self.options, name):
                option = f"--{name.replace('_', '-')}"
                raise UsageError(
                    f"the type {dataset_type} has no such option", location=option, hint="Omit the option."
                )

    def refuse(self, path: str, error: CaptError, dataset_type: str = "") -> None:
        """Adds the problem of a reader with a path. The problem has the original paths."""
        self.problems.add(path, self.excerpt.restore(str(error)), dataset_type)

    def _read_records(self, reader: DatasetReader, dataset_type: str) -> tuple[Record, ...]:
        if isinstance(reader, ListingReader):
            images = list(islice(reader.read_listed_images(self._list_images()), self.options.num_examples))
            return tuple(map(self._build_record, images))
        images = list(islice(reader.read_images(), _MAX_RECORDS))
        usable = [one for one in images if one.failure is None]
        if 2 * len(usable) < max(1, len(images)):
            raise _build_error("no image can be read", _find_failure(images, reader))
        distinct: dict[tuple[str, str], ImageEntry] = {}
        for one in images:
            distinct.setdefault((one.document, one.image_id), one)
        shown = dict(islice(distinct.items(), self.options.num_examples))
        captions: dict[tuple[str, str], list[str]] = {key: [] for key in shown}
        failures: list[FailedRecord] = []
        readable = 0
        # A list of URLs is not copied, and has image and caption in one row.
        limit = _MAX_RECORDS if reader.has_urls else _MAX_CAPTIONS
        for entry in islice(reader.read_captions(), limit):
            if isinstance(entry, CaptionEntry):
                captions.get((entry.document, entry.image_id), []).append(entry.caption)
                readable += readable < _MAX_RECORDS
            elif len(failures) < _MAX_RECORDS:
                failures.append(entry)
        if readable < len(failures) or not readable:
            raise _build_error("no caption can be read", failures[0] if failures else None)
        if failures:
            problem = self.excerpt.restore(str(_build_error("", failures[0])))
            found = UnreadableCaptions(len(failures), readable + len(failures), problem)
            self.unreadable.setdefault(dataset_type, found)
        is_inside = isinstance(reader, EmbeddedReader)
        return tuple(self._build_record(one, captions[key], is_inside=is_inside) for key, one in shown.items())

    def _list_images(self) -> list[ListedImage]:
        return [
            ListedImage(image.name, "", image.has_known_name) for one in self.image_contents for image in one.images
        ]

    def _build_record(
        self, image: ImageEntry, captions: Sequence[str] = (), label: str | None = None, *, is_inside: bool = False
    ) -> Record:
        """Returns the record of an image. `is_inside`: the file of the annotations contains it."""
        failure, name = image.failure, image.file_name or image.image_id
        problem = f"{failure.reason}: {failure.detail}".removesuffix(": ") if failure else ""
        found = None if is_inside or image.url or not self.image_contents else self._is_listed(name)
        return Record(image.url or name, image.split, tuple(captions), label, self.excerpt.restore(problem), found)

    def _is_listed(self, name: str) -> bool | None:
        """Returns whether an image file is listed by this end of its path, with or without its suffix."""
        end = f"/{normalize_name(name)}"
        same = self._listed_names.get(end.rpartition("/")[2], [])
        is_listed = any(f"/{one}".endswith(end) for one in same)
        return is_listed or (False if all(one.is_complete for one in self.image_contents) else None)

    @cached_property
    def _listed_names(self) -> dict[str, list[str]]:
        """The paths of the images, with and without suffix, by their last part."""
        names: dict[str, list[str]] = {}
        for image in self._list_images():
            path = normalize_name(image.name)
            for one in {path, path[: len(path) - len(PurePosixPath(path).suffix)]}:
                names.setdefault(one.rpartition("/")[2], []).append(one)
        return names


def _find_failure(images: Sequence[ImageEntry], reader: DatasetReader) -> FailedRecord | None:
    """Returns the first record that has failed as an image or, if there is no image, as a caption."""
    if images:
        return next((one.failure for one in images if one.failure), None)
    first = islice(reader.read_captions(), _MAX_RECORDS)
    return next((one for one in first if isinstance(one, FailedRecord)), None)


def _build_error(problem: str, failure: FailedRecord | None) -> CaptError:
    """Returns the error for the first failed record; for `problem` without one."""
    if failure is None:
        return CaptError(problem)
    detail = f": {failure.detail}" if failure.detail else ""
    return CaptError(f"{failure.reason}{detail}", location=failure.location)
