"""Flickr30k: `results_20130124.token`, or `results.csv` with lines `name.jpg| 0| caption`.

The second has a header, `image_name| comment_number| comment`, and a published row that lacks its last separator, which
is mended and counted. The dataset has no splits of its own, so they are hashed. Where a directory or archive holds
both files, the first is read.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import islice

from pipelines.datasets.annotation_files import AnnotationFile, list_annotation_files, require_annotations
from pipelines.datasets.base import CaptionEntry, FailedRecord, ImageEntry, set_document
from pipelines.datasets.flickr_tokens import read_token_captions
from pipelines.datasets.lines import Line

MENDED = "missing separator"

_FILES = re.compile(r"(^|/)(results_20130124\.token|results\.csv)$")
_ROW = re.compile(r"([^|]*[^|\s])\s*\|\s*(\d+)\s*\|\s*(.*)", re.DOTALL)
_UNSEPARATED = re.compile(r"([^|]*[^|\s])\s*\|\s*(\d+)\s+(.*)", re.DOTALL)


class Flickr30kReader:
    """Flickr30k's captions."""

    max_failures = "5%"

    def __init__(self, annotations: Sequence[str]) -> None:
        self._annotations = require_annotations(annotations, "flickr30k", "results_20130124.token")

    def images(self) -> Iterator[ImageEntry]:
        """The images that have captions, in the file's order."""
        names = dict.fromkeys((one.image_id, one.document) for one in self.captions() if isinstance(one, CaptionEntry))
        return (ImageEntry(name, name, document=document) for name, document in names)

    def captions(self) -> Iterator[CaptionEntry | FailedRecord]:
        """The captions, in the file's order."""
        for name in self._annotations:
            found = list(list_annotation_files([name], _FILES, "results_20130124.token or results.csv"))
            tokens = [document for document in found if document.name.endswith(".token")]
            for document in tokens or found:
                entries = _rows(document) if _has_header(document) else read_token_captions(document)
                yield from set_document(document.location, entries)


def _has_header(document: AnnotationFile) -> bool:
    line = next(document.lines(), None)
    return isinstance(line, Line) and line.text.split("|")[0].strip() == "image_name"


def _rows(document: AnnotationFile) -> Iterator[CaptionEntry | FailedRecord]:
    return islice(document.records(_caption), 1, None)


def _caption(line: Line) -> CaptionEntry | FailedRecord:
    text = line.text.lstrip()
    match, repaired = _ROW.fullmatch(text), ""
    if not match:
        match, repaired = _UNSEPARATED.fullmatch(text), MENDED
    if not match:
        return line.malformed("no image|number|caption", "expected name.jpg| 0| and the caption")
    if not match[3].strip():
        return line.malformed("no caption")
    return CaptionEntry(match[1], match[2], match[3], repaired=repaired)
