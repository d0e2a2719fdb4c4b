"""Reads Flickr30k: `results_20130124.token`, or `results.csv` with lines `name.jpg| 0| caption`.

`results.csv` has a header, and one published row lacks its last separator; the row is repaired and counted. The dataset
has no splits, so they are hashed. If a directory or archive contains both files, the token file is read.
"""

import re
from collections.abc import Iterator
from itertools import islice

from pipelines.datasets.annotation_files import AnnotationFile, AnnotationReader, list_annotation_files
from pipelines.datasets.base import CaptionEntry, FailedRecord, ImageEntry, set_document
from pipelines.datasets.flickr_tokens import list_captioned_images, read_token_captions
from pipelines.datasets.lines import Line

_REPAIRED = "missing separator"

_ROW = re.compile(r"([^|]*[^|\s])\s*\|\s*(\d+)\s*\|\s*(.*)", re.DOTALL)
_UNSEPARATED = re.compile(r"([^|]*[^|\s])\s*\|\s*(\d+)\s+(.*)", re.DOTALL)


class Flickr30kReader(AnnotationReader):
    """Reads the captions of Flickr30k."""

    dataset_type = "flickr30k"
    pattern = re.compile(r"(^|/)(results_20130124\.token|results\.csv)$")
    pattern_text = "results_20130124.token or results.csv"
    example = "results_20130124.token"

    def read_images(self) -> Iterator[ImageEntry]:
        images = list_captioned_images(self.read_captions())
        return (ImageEntry(name, name, document=document) for name, document in images)

    def read_captions(self) -> Iterator[CaptionEntry | FailedRecord]:
        for name in self.annotations:
            found = list(list_annotation_files([name], self.pattern, self.pattern_text))
            tokens = [document for document in found if document.name.endswith(".token")]
            for document in tokens or found:
                entries = _read_rows(document) if _has_header(document) else read_token_captions(document)
                yield from set_document(document.location, entries)


def _has_header(document: AnnotationFile) -> bool:
    line = next(document.read_lines(), None)
    return isinstance(line, Line) and line.text.split("|")[0].strip() == "image_name"


def _read_rows(document: AnnotationFile) -> Iterator[CaptionEntry | FailedRecord]:
    return islice(document.read_records(_read_row), 1, None)


def _read_row(line: Line) -> CaptionEntry | FailedRecord:
    text = line.text.lstrip()
    match, repaired = _ROW.fullmatch(text), ""
    if not match:
        match, repaired = _UNSEPARATED.fullmatch(text), _REPAIRED
    if not match:
        return line.fail("no image|number|caption", "expected name.jpg| 0| and the caption")
    if not match[3].strip():
        return line.fail("no caption")
    return CaptionEntry(match[1], match[2], match[3], repaired=repaired)
