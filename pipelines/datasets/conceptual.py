"""Reads Conceptual Captions: TSV files without a header, `caption<TAB>URL`, whose images are downloaded.

An image's ID is the SHA-256 of its URL; a caption's ID is the SHA-256 of its text. So both are independent of the row
order. Other columns are ignored. Many URLs fail, so `--max-failures` is 100% by default.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from features.inputs.image_urls import build_download_name
from features.text.lines import FailedRecord, Line
from features.text.record_fields import find_split_in_name
from pipelines.datasets.annotation_files import AnnotationFile, AnnotationReader
from pipelines.datasets.base import CaptionEntry, ImageEntry
from schemas.defaults import MAX_DOWNLOAD_FAILURES


class ConceptualReader(AnnotationReader):
    """Reads captions with the URLs of their images."""

    max_failures = MAX_DOWNLOAD_FAILURES
    has_urls = True
    dataset_type = "conceptual"
    pattern = re.compile(r"\.tsv$", re.IGNORECASE)
    pattern_text = "*.tsv"
    example = "Train_GCC-training.tsv"

    def read_file_images(self, document: AnnotationFile) -> Iterator[ImageEntry]:
        split = find_split_in_name(document.name)
        for row in document.read_records(_read_row):
            if not isinstance(row, FailedRecord):
                name = build_download_name(row[1])
                yield ImageEntry(PurePosixPath(name).name, name, split, url=row[1])

    def read_file_captions(self, document: AnnotationFile) -> Iterator[CaptionEntry | FailedRecord]:
        for row in document.read_records(_read_row):
            if isinstance(row, FailedRecord):
                yield row
            else:
                caption, url = row
                digest = hashlib.sha256(caption.encode()).hexdigest()
                yield CaptionEntry(PurePosixPath(build_download_name(url)).name, digest, caption)


def _read_row(line: Line) -> tuple[str, str] | FailedRecord:
    """Returns caption and URL."""
    if "\t" not in line.text:
        return line.fail("no separator", "expected caption, tab and URL")
    caption, url, *_ = line.text.split("\t")
    if "://" not in url:
        return line.fail("no URL", "expected caption, tab and URL")
    return caption, url.strip()
