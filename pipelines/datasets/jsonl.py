"""JSON lines: an object a line with `image`, `caption` or `captions`, and `split` and `id` if wanted.

`captions` is a list; the id of each is then its place in it, after the line's `id` and a point where there is one.
Without an `id`, captions are numbered within their image. Of an image's lines the first says its split.
"""

import json
import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

from pipelines.datasets.annotation_files import AnnotationFile, list_annotation_files, require_annotations
from pipelines.datasets.base import CaptionEntry, FailedRecord, ImageEntry, set_document
from pipelines.datasets.lines import Line
from pipelines.datasets.record_fields import (
    CaptionCounter,
    abbreviate,
    read_caption,
    read_identifier,
    read_name,
    read_split_field,
    reject_duplicate_keys,
)
from pipelines.datasets.record_reader import read_record
from schemas.errors import RecordError

_FILES = re.compile(r"\.(jsonl|ndjson)$", re.IGNORECASE)


class JsonLinesReader:
    """Captions in files of JSON lines."""

    max_failures = "5%"

    def __init__(self, annotations: Sequence[str]) -> None:
        self._annotations = require_annotations(annotations, "jsonl", "captions.jsonl")

    def images(self) -> Iterator[ImageEntry]:
        """The images that lines name."""
        for document in self._documents():
            for record in document.records(_record):
                if not isinstance(record, FailedRecord):
                    yield ImageEntry(record.image, record.image, record.split, document=document.location)

    def captions(self) -> Iterator[CaptionEntry | FailedRecord]:
        """The captions, in the files' order."""
        numbering = CaptionCounter()
        for document in self._documents():
            for record in document.records(_record):
                entries = (record,) if isinstance(record, FailedRecord) else _captions(record, numbering)
                yield from set_document(document.location, entries)

    def _documents(self) -> Iterator[AnnotationFile]:
        return list_annotation_files(self._annotations, _FILES, "*.jsonl")


class _Record(NamedTuple):
    """The object of a line.

    Args:
        line: The line.
        image: Name of the image.
        split: Its split, if the line has one.
        own_id: Id of the line; empty if it has none.
        captions: Key, suffix of the id, and value of each caption.
    """

    line: Line
    image: str
    split: str | None
    own_id: str
    captions: tuple[tuple[str, str, Any], ...]


def _record(line: Line) -> _Record | FailedRecord:
    try:
        record = json.loads(line.text, object_pairs_hook=reject_duplicate_keys)
    except (ValueError, RecursionError) as error:
        return line.malformed("not JSON", str(error))
    image = read_name(record, "image")
    several = record.get("captions") or []
    if not isinstance(several, list):
        raise RecordError("parse", "no list", f"'captions': {abbreviate(several)}")
    own_id = "" if record.get("id") in (None, "") else read_identifier(record, "id")
    captions = [] if record.get("caption") is None else [("caption", "", record["caption"])]
    captions += ((f"captions[{number}]", f".{number}", caption) for number, caption in enumerate(several))
    return _Record(line, image, read_split_field(record.get("split")), own_id, tuple(captions))


def _captions(record: _Record, numbering: CaptionCounter) -> Iterator[CaptionEntry | FailedRecord]:
    if not record.captions:
        yield record.line.malformed("no caption", "neither 'caption' nor 'captions'")
    for key, suffix, caption in record.captions:
        caption_id = f"{record.own_id}{suffix}" if record.own_id else numbering.take(record.image)
        yield read_record(f"{record.line.place}: {key}", partial(_caption, record.image, caption_id, caption))


def _caption(image: str, caption_id: str, found: Any) -> CaptionEntry:
    return CaptionEntry(image, caption_id, read_caption(found))
