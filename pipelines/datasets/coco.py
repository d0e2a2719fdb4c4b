"""COCO captions: `captions_{train,val}{2014,2017}.json`, as files or inside their published zip.

Format: https://cocodataset.org/#format-data: `images[{id, file_name}]`, `annotations[{id, image_id, caption}]`.
The split is the word in the file's name: train, val, validation, dev or test. One year is read
at a time, for both cut the same images.
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from pipelines.datasets.annotation_files import AnnotationFile, list_annotation_files, require_annotations
from pipelines.datasets.base import CaptionEntry, FailedRecord, ImageEntry, build_failed_image, set_document
from pipelines.datasets.record_fields import (
    find_split_in_name,
    read_caption,
    read_identifier,
    read_list,
    read_name,
    read_value,
)
from pipelines.datasets.record_reader import read_record
from schemas.errors import UsageError

_YEAR = re.compile(r"(train|val|test)(\d{4})")
_CAPTIONS = re.compile(r"(^|/)captions_[^/]*\.json$")
_MEND = "is this a COCO captions file?"


class CocoReader:
    """COCO's annotation files, several together."""

    max_failures = "5%"

    def __init__(self, annotations: Sequence[str]) -> None:
        self._annotations = require_annotations(annotations, "coco", "captions_train2017.json")

    def images(self) -> Iterator[ImageEntry]:
        """The images of all files."""
        for document in self._documents():
            split = find_split_in_name(document.name)
            for place, image in read_list(document.json(), "images", document.location, _MEND):
                entry = read_record(place, partial(_image, image, split))
                named = build_failed_image(entry) if isinstance(entry, FailedRecord) else entry
                yield named._replace(document=document.location, place=place)

    def captions(self) -> Iterator[CaptionEntry | FailedRecord]:
        """The captions of all files."""
        for document in self._documents():
            annotations = read_list(document.json(), "annotations", document.location, _MEND)
            entries = (read_record(place, partial(_caption, annotation)) for place, annotation in annotations)
            yield from set_document(document.location, entries)

    def _documents(self) -> list[AnnotationFile]:
        found = list(list_annotation_files(self._annotations, _CAPTIONS, "captions_*.json"))
        years = {match[2] for document in found if (match := _YEAR.search(_last_part(document.name)))}
        if len(years) > 1:
            message = f"captions of {' and '.join(sorted(years))} share images, and their splits differ"
            raise UsageError(message, location=", ".join(self._annotations), hint="name the files of one year")
        return found


def _image(image: Any, split: str | None) -> ImageEntry:
    return ImageEntry(read_identifier(image, "id"), read_name(image, "file_name"), split)


def _caption(annotation: Any) -> CaptionEntry:
    return CaptionEntry(
        read_identifier(annotation, "image_id"),
        read_identifier(annotation, "id"),
        read_caption(read_value(annotation, "caption")),
    )


def _last_part(name: str) -> str:
    return name.rsplit("/", 1)[-1]
