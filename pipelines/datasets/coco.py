"""Reads COCO captions: `captions_{train,val}{2014,2017}.json`, as files or in their published zip.

Format: https://cocodataset.org/#format-data: `images[{id, file_name}]`, `annotations[{id, image_id, caption}]`.
The file name states the split. Files of two years are refused, because they divide the same images differently.
"""

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from features.text.lines import FailedRecord
from features.text.record_fields import (
    find_split_in_name,
    read_caption,
    read_identifier,
    read_name,
    read_record,
    read_value,
)
from pipelines.datasets.annotation_files import AnnotationFile, AnnotationReader
from pipelines.datasets.base import CaptionEntry, ImageEntry
from schemas.errors import UsageError

_YEAR = re.compile(r"(train|val|test)(\d{4})")
_HINT = "Check that this is a COCO captions file."


class CocoReader(AnnotationReader):
    """Reads one or more COCO captions files of one year."""

    dataset_type = "coco"
    pattern = re.compile(r"(^|/)captions_[^/]*\.json$")
    pattern_text = "captions_*.json"
    example = "captions_train2017.json"

    def list_documents(self) -> Iterator[AnnotationFile]:
        found = list(super().list_documents())
        years = {match[2] for document in found if (match := _YEAR.search(document.name.rsplit("/", 1)[-1]))}
        if len(years) > 1:
            message = f"captions of {' and '.join(sorted(years))} share images, and their splits differ"
            raise UsageError(message, location=", ".join(self.annotations), hint="Use the files of one year.")
        return iter(found)

    def read_file_images(self, document: AnnotationFile) -> Iterator[ImageEntry]:
        return document.read_image_list(partial(_read_image, find_split_in_name(document.name)), _HINT)

    def read_file_captions(self, document: AnnotationFile) -> Iterator[CaptionEntry | FailedRecord]:
        for location, annotation in document.read_list("annotations", _HINT):
            yield read_record(location, partial(_read_caption, annotation))


def _read_image(split: str | None, image: Any) -> ImageEntry:
    return ImageEntry(read_identifier(image, "id"), read_name(image, "file_name"), split)


def _read_caption(annotation: Any) -> CaptionEntry:
    image_id, caption_id = read_identifier(annotation, "image_id"), read_identifier(annotation, "id")
    return CaptionEntry(image_id, caption_id, read_caption(read_value(annotation, "caption")))
