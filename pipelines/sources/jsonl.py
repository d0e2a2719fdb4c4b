"""JSON lines: an object a line with `image`, `caption` or `captions`, and `split` and `id` if wanted.

`captions` is a list; the id of each is then its place in it, after the line's `id` and a point where there is one.
Without an `id`, captions are numbered within their image. Of an image's lines the first says its split.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from pipelines.sources.base import CaptionEntry, ImageEntry, Malformed
from pipelines.sources.documents import documents, required
from pipelines.sources.fields import Numbering, split_of, text_of
from pipelines.sources.lines import Line

_FILES = re.compile(r"\.(jsonl|ndjson)$", re.IGNORECASE)


class JsonLines:
    """Captions in files of JSON lines."""

    max_failures = "5%"

    def __init__(self, annotations: Sequence[str]) -> None:
        self._annotations = required(annotations, "jsonl", "captions.jsonl")

    def images(self) -> Iterator[ImageEntry]:
        """The images that lines name."""
        for line in self._records():
            if not isinstance(line, Malformed):
                _, record, split = line
                yield ImageEntry(text_of(record["image"]), text_of(record["image"]), split)

    def captions(self) -> Iterator[CaptionEntry | Malformed]:
        """The captions, in the files' order."""
        numbering = Numbering()
        for line in self._records():
            if isinstance(line, Malformed):
                yield line
            else:
                yield from _captions(line[0], line[1], numbering)

    def _records(self) -> Iterator[tuple[Line, dict[str, Any], str | None] | Malformed]:
        for document in documents(self._annotations, _FILES, "*.jsonl"):
            for line in document.lines():
                yield line if isinstance(line, Malformed) else _record(line)


def _record(line: Line) -> tuple[Line, dict[str, Any], str | None] | Malformed:
    """The object of a line and its split, or Malformed."""
    try:
        record = json.loads(line.text)
    except (ValueError, RecursionError) as error:
        return line.malformed("not JSON", str(error))
    if not isinstance(record, dict):
        return line.malformed("no object")
    image, split, own_id = record.get("image"), record.get("split"), record.get("id")
    if not isinstance(image, str) or not image.strip():
        return line.malformed("no image", "'image' is no text")
    if not isinstance(record.get("captions") or [], list):
        return line.malformed("no list", "'captions' is no list")
    if isinstance(own_id, bool) or not isinstance(own_id, str | int | None):
        return line.malformed("bad id", "'id' is neither text nor a whole number")
    try:
        return line, record, split_of("" if split is None else str(split))
    except ValueError as error:
        return line.malformed("unknown split", str(error))


def _captions(line: Line, record: dict[str, Any], numbering: Numbering) -> Iterator[CaptionEntry | Malformed]:
    image, own_id = text_of(record["image"]), record.get("id")
    prefix = "" if own_id in (None, "") else text_of(own_id)
    single, several = record.get("caption"), record.get("captions") or []
    if single is None and not several:
        yield line.malformed("no caption", "neither 'caption' nor 'captions'")
    if single is not None:
        yield _entry(line, "caption", image, prefix or numbering.take(image), single)
    for number, caption in enumerate(several):
        caption_id = f"{prefix}.{number}" if prefix else numbering.take(image)
        yield _entry(line, f"captions[{number}]", image, caption_id, caption)


def _entry(line: Line, key: str, image: str, caption_id: str, caption: Any) -> CaptionEntry | Malformed:
    if isinstance(caption, str):
        return CaptionEntry(image, caption_id, caption)
    return Malformed(f"{line.place}: {key}", "caption is no text", repr(caption)[:80])
