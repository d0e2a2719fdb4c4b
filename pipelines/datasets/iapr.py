"""IAPR TC-12: `annotations_complete_eng/NN/NNNN.eng`, one `<DOC>` a file, in a directory or an archive.

Described at https://imageclef.org/photodata. The archive has light annotations beside the complete ones, without
descriptions, so where there are complete ones only they are read. A description's clauses, split by `;`, are the
image's captions, for each describes the image by itself; a caption's id is its clause's number. Files are Latin-1,
and not quite XML (`&` stands bare), so tags are found by name and nothing is expanded but the five characters that
XML itself escapes. An image's id is its path in `<IMAGE>`. There are no splits, so they are hashed.
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial

from pipelines.datasets.annotation_files import AnnotationFile, list_annotation_files, require_annotations
from pipelines.datasets.base import CaptionEntry, FailedRecord, ImageEntry
from pipelines.datasets.lines import shorten
from pipelines.datasets.record_reader import read_record
from pipelines.datasets.text_encoding import convert_to_utf8, find_byte_order_mark

_MAX_BYTES = 16 << 20
_FILES = re.compile(r"\.eng$")
_COMPLETE = re.compile(r"(^|/)annotations_complete_eng/")
_ESCAPED = {"&lt;": "<", "&gt;": ">", "&quot;": '"', "&apos;": "'", "&amp;": "&"}
_ESCAPE = re.compile("|".join(_ESCAPED))


class IaprReader:
    """IAPR TC-12's English annotations."""

    max_failures = "5%"

    def __init__(self, annotations: Sequence[str]) -> None:
        self._annotations = require_annotations(annotations, "iapr", "the directory annotations_complete_eng")

    def images(self) -> Iterator[ImageEntry]:
        """The images, by file."""
        for document in self._documents():
            entry = read_record(document.location, partial(_read, document))
            if not isinstance(entry, FailedRecord):
                yield ImageEntry(entry[0], entry[0], document=document.location)

    def captions(self) -> Iterator[CaptionEntry | FailedRecord]:
        """The captions, by file."""
        for document in self._documents():
            entry = read_record(document.location, partial(_read, document))
            if isinstance(entry, FailedRecord):
                yield entry
                continue
            image, clauses = entry
            if not clauses:
                yield FailedRecord(document.location, "no description", image)
            for number, clause in enumerate(clauses):
                yield CaptionEntry(image, str(number), clause, document=document.location)

    def _documents(self) -> Iterator[AnnotationFile]:
        for name in self._annotations:
            found = list(list_annotation_files([name], _FILES, "*.eng"))
            yield from [document for document in found if _COMPLETE.search(document.name)] or found


def _read(document: AnnotationFile) -> tuple[str, list[str]] | FailedRecord:
    """The path of the image, and the clauses of its description."""
    data = document.read(_MAX_BYTES)
    text = convert_to_utf8(data).decode("utf-8", "replace") if find_byte_order_mark(data) else data.decode("latin-1")
    body = _field(text, "DOC")
    if body is None:
        return FailedRecord(document.location, "no DOC", shorten(text))
    if text.count("<DOC>") > 1:
        return FailedRecord(document.location, "several DOC", "a file describes one image")
    image = _plain(_field(body, "IMAGE"))
    if not image:
        return FailedRecord(document.location, "no IMAGE", shorten(body))
    clauses = (clause.strip() for clause in _plain(_field(body, "DESCRIPTION")).split(";"))
    return image, [clause for clause in clauses if clause]


def _field(text: str, tag: str) -> str | None:
    """What stands between the first opening tag and the closing one after it."""
    _, opened, rest = text.partition(f"<{tag}>")
    content, closed, _ = rest.partition(f"</{tag}>")
    return content if opened and closed else None


def _plain(content: str | None) -> str:
    return _ESCAPE.sub(lambda match: _ESCAPED[match[0]], content or "").strip()
