"""Reads JSON lines: one object per line with `image`, `caption` or `captions`, and optionally `split` and `id`.

`captions` is a list. A caption's ID is its number in the list, after the `id` of the line and a point if there is one.
Without an `id`, captions are numbered within their image. The first line of an image decides its split.
"""

import json
import re
from collections.abc import Iterator
from functools import partial
from reprlib import repr as abbreviate
from typing import Any, NamedTuple

from features.text.lines import FailedRecord, Line
from features.text.record_fields import (
    read_caption,
    read_identifier,
    read_name,
    read_record,
    read_split_field,
    reject_duplicate_keys,
)
from pipelines.datasets.annotation_files import AnnotationFile, AnnotationReader
from pipelines.datasets.base import CaptionEntry, ImageEntry
from schemas.errors import RecordError


class JsonLinesReader(AnnotationReader):
    """Reads captions in files of JSON lines."""

    dataset_type = "jsonl"
    pattern = re.compile(r"\.(jsonl|ndjson)$", re.IGNORECASE)
    pattern_text = "*.jsonl"
    example = "captions.jsonl"

    def read_file_images(self, document: AnnotationFile) -> Iterator[ImageEntry]:
        for record in document.read_records(_read_line):
            if not isinstance(record, FailedRecord):
                yield ImageEntry(record.image, record.image, record.split)

    def read_file_captions(self, document: AnnotationFile) -> Iterator[CaptionEntry | FailedRecord]:
        for record in document.read_records(_read_line):
            if isinstance(record, FailedRecord):
                yield record
                continue
            if not record.captions:
                yield record.line.fail("no caption", "neither 'caption' nor 'captions'")
            for key, suffix, caption in record.captions:
                caption_id = f"{record.own_id}{suffix}" if record.own_id else self.number_caption(record.image)
                read = partial(_read_caption, record.image, caption_id, caption)
                yield read_record(f"{record.line.location}: {key}", read)


class _Record(NamedTuple):
    """The object of a line. `captions` contains key, suffix of the ID, and value of each caption."""

    line: Line
    image: str
    split: str | None
    own_id: str
    captions: tuple[tuple[str, str, Any], ...]


def _read_line(line: Line) -> _Record | FailedRecord:
    try:
        record = json.loads(line.text, object_pairs_hook=reject_duplicate_keys)
    except (ValueError, RecursionError) as error:
        return line.fail("not JSON", str(error))
    image = read_name(record, "image")
    several = record.get("captions") or []
    if not isinstance(several, list):
        raise RecordError("parse", "not a list", f"'captions': {abbreviate(several)}")
    own_id = "" if record.get("id") in (None, "") else read_identifier(record, "id")
    captions = [] if record.get("caption") is None else [("caption", "", record["caption"])]
    captions += ((f"captions[{number}]", f".{number}", caption) for number, caption in enumerate(several))
    return _Record(line, image, read_split_field(record.get("split")), own_id, tuple(captions))


def _read_caption(image: str, caption_id: str, found: Any) -> CaptionEntry:
    return CaptionEntry(image, caption_id, read_caption(found))
