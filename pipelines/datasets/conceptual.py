"""Conceptual Captions: TSV files without a header, `caption<TAB>address`, whose images are downloaded.

An image's id is the SHA-256 of its address and names its file; a caption's id is the SHA-256 of its text. Both stay
what they are in whatever order the rows come. Further columns, as the subset with labels has, are left out. Dead links
are normal, so any share of the records may fail.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from features.references.downloads import build_download_name
from pipelines.datasets.annotation_files import list_annotation_files, require_annotations
from pipelines.datasets.base import CaptionEntry, FailedRecord, ImageEntry
from pipelines.datasets.lines import Line
from pipelines.datasets.record_fields import find_split_in_name

_FILES = re.compile(r"\.tsv$", re.IGNORECASE)


class ConceptualReader:
    """Captions with the addresses of their images."""

    max_failures = "100%"

    def __init__(self, annotations: Sequence[str]) -> None:
        self._annotations = require_annotations(annotations, "conceptual", "Train_GCC-training.tsv")

    def images(self) -> Iterator[ImageEntry]:
        """The images that rows name."""
        for row in self._rows():
            if isinstance(row, tuple):
                _, url, split, document = row
                name = build_download_name(url)
                yield ImageEntry(PurePosixPath(name).name, name, split, url, document=document)

    def captions(self) -> Iterator[CaptionEntry | FailedRecord]:
        """The captions, a row each."""
        for row in self._rows():
            if isinstance(row, FailedRecord):
                yield row
            else:
                caption, url, _, document = row
                digest = hashlib.sha256(caption.encode()).hexdigest()
                yield CaptionEntry(PurePosixPath(build_download_name(url)).name, digest, caption, document=document)

    def _rows(self) -> Iterator[tuple[str, str, str | None, str] | FailedRecord]:
        """Caption, address, split and annotation file."""
        for document in list_annotation_files(self._annotations, _FILES, "*.tsv"):
            split = find_split_in_name(document.name)
            for row in document.records(_row):
                yield row if isinstance(row, FailedRecord) else (*row, split, document.location)


def _row(line: Line) -> tuple[str, str] | FailedRecord:
    if "\t" not in line.text:
        return line.malformed("no separator", "expected caption, a tab and the address")
    caption, url, *_ = line.text.split("\t")
    if "://" not in url:
        return line.malformed("no address", "expected caption, a tab and the address")
    return caption, url.strip()
