"""Reads IAPR TC-12: `annotations_complete_eng/NN/NNNN.eng`, one `<DOC>` per file, in a directory or an archive.

Described at https://imageclef.org/photodata. The archive also has annotations without descriptions, so files in
`annotations_complete_eng` are preferred. Each clause of a description, separated by `;`, is one caption; its ID is its
number. With `--whole-descriptions`, all clauses are one caption with the ID `description`. Files are Latin-1 and not
valid XML (`&` is not escaped). So tags are found by name, and only the five entities of XML are decoded. An image's ID
is its path in `<IMAGE>`. The dataset has no splits, so they are hashed.
"""

import re
from collections.abc import Iterator, Sequence
from functools import partial
from xml.sax.saxutils import unescape

from features.text.byte_order_marks import convert_to_utf8, find_byte_order_mark
from features.text.lines import FailedRecord, shorten
from features.text.record_fields import read_record
from pipelines.datasets.annotation_files import AnnotationFile, AnnotationReader
from pipelines.datasets.base import CaptionEntry, ImageEntry

_MAX_BYTES = 16 << 20
_COMPLETE = re.compile(r"(^|/)annotations_complete_eng/")
_QUOTES = {"&quot;": '"', "&apos;": "'"}


class IaprReader(AnnotationReader):
    """Reads the English annotations of IAPR TC-12."""

    dataset_type = "iapr"
    pattern = re.compile(r"\.eng$")
    pattern_text = "*.eng"
    example = "the directory annotations_complete_eng"

    def __init__(self, annotations: Sequence[str], *, whole_descriptions: bool = False) -> None:
        super().__init__(annotations)
        self._whole_descriptions = whole_descriptions

    def choose_documents(self, path: str, found: list[AnnotationFile]) -> list[AnnotationFile]:
        return [one for one in found if _COMPLETE.search(one.name)] or found

    def read_file_images(self, document: AnnotationFile) -> Iterator[ImageEntry]:
        entry = read_record(document.location, partial(_read_document, document))
        if not isinstance(entry, FailedRecord):
            yield ImageEntry(entry[0], entry[0])

    def read_file_captions(self, document: AnnotationFile) -> Iterator[CaptionEntry | FailedRecord]:
        entry = read_record(document.location, partial(_read_document, document))
        if isinstance(entry, FailedRecord):
            yield entry
            return
        image, clauses = entry
        if not clauses:
            yield FailedRecord(document.location, "no description", image)
        elif self._whole_descriptions:
            yield CaptionEntry(image, "description", "; ".join(clauses))
        else:
            yield from (CaptionEntry(image, str(number), clause) for number, clause in enumerate(clauses))


def _read_document(document: AnnotationFile) -> tuple[str, list[str]] | FailedRecord:
    """Returns the path of the image and the clauses of its description."""
    data = document.read_bytes(_MAX_BYTES)
    text = convert_to_utf8(data).decode("utf-8", "replace") if find_byte_order_mark(data) else data.decode("latin-1")
    body = _find_field(text, "DOC")
    if body is None:
        return FailedRecord(document.location, "no DOC", shorten(text))
    if text.count("<DOC>") > 1:
        return FailedRecord(document.location, "several DOC", "a file describes one image")
    image = _decode_entities(_find_field(body, "IMAGE"))
    if not image:
        return FailedRecord(document.location, "no IMAGE", shorten(body))
    clauses = (clause.strip() for clause in _decode_entities(_find_field(body, "DESCRIPTION")).split(";"))
    return image, [clause for clause in clauses if clause]


def _find_field(text: str, tag: str) -> str | None:
    """Returns the text between the first opening tag and the next closing tag."""
    _, opened, rest = text.partition(f"<{tag}>")
    content, closed, _ = rest.partition(f"</{tag}>")
    return content if opened and closed else None


def _decode_entities(content: str | None) -> str:
    return unescape(content or "", _QUOTES).strip()
