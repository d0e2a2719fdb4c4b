"""Reads Flickr8k and Flickr30k. An image's ID is its file name; a caption's ID is its number.

Token files have lines `name.jpg#0<TAB>caption`. Some copies have a space instead of the tab in some lines. Such lines
are repaired and counted.
"""

import logging
import re
from collections.abc import Iterator
from itertools import islice

from features.text.lines import FailedRecord, Line
from features.text.record_fields import parse_split_name
from pipelines.datasets.annotation_files import AnnotationFile, AnnotationReader
from pipelines.datasets.base import CaptionEntry, ImageEntry
from schemas.errors import CaptError, UsageError

_log = logging.getLogger("capt.prepare")

_TAB = re.compile(r"([^\t]*\S)#(\d+)[ ]*\t(.*)", re.DOTALL)
_SPACE = re.compile(r"(\S+)#(\d+) +(.*)", re.DOTALL)
_NO_CAPTION = re.compile(r"\S.*#\d+")
_ROW = re.compile(r"([^|]*[^|\s])\s*\|\s*(\d+)\s*\|\s*(.*)", re.DOTALL)
_UNSEPARATED = re.compile(r"([^|]*[^|\s])\s*\|\s*(\d+)\s+(.*)", re.DOTALL)
_LIST = re.compile(r"(train|dev|test)Images\.txt$")
_LIST_NAMES = tuple(f"Flickr_8k.{split}Images.txt" for split in ("train", "dev", "test"))


class _FlickrReader(AnnotationReader):
    def read_file_images(self, document: AnnotationFile) -> Iterator[ImageEntry]:
        captions = self.read_file_captions(document)
        names = dict.fromkeys(one.image_id for one in captions if not isinstance(one, FailedRecord))
        return (ImageEntry(name, name) for name in names)

    def read_file_captions(self, document: AnnotationFile) -> Iterator[CaptionEntry | FailedRecord]:
        return document.read_records(_read_token)


class Flickr8kReader(_FlickrReader):
    """Reads `Flickr8k.token.txt` and its split lists, as files, in a directory, or in Flickr8k_text.zip.

    The lists `Flickr_8k.{train,dev,test}Images.txt` contain one image name per line. They are read from --annotations
    and from the directory of the token file; dev becomes val. With any list, images on no list are `unused`; without
    lists, splits are hashed. The captioned image `2258277193_586949ec62.jpg.1` was never published. It fails as
    missing.
    """

    dataset_type = "flickr8k"
    pattern = re.compile(r"(^|/)(Flickr8k\.token|Flickr_8k\.(train|dev|test)Images)\.txt$")
    pattern_text = example = "Flickr8k.token.txt"
    additions = _LIST

    def list_documents(self) -> Iterator[AnnotationFile]:
        found = [document for document in super().list_documents() if not _LIST.search(document.name)]
        if not found:
            location = ", ".join(self.annotations)
            raise UsageError("no token file, only split lists", location=location, hint="Add Flickr8k.token.txt.")
        return iter(found)

    def read_images(self) -> Iterator[ImageEntry]:
        images, splits = list(super().read_images()), self._read_splits()
        unknown = splits.keys() - {one.image_id for one in images}
        if unknown:
            message = "names in the split lists have no caption"
            _log.warning("%s: %d, such as %s. They are ignored.", message, len(unknown), min(unknown))
        return (one._replace(split=splits.get(one.image_id, "unused") if splits else None) for one in images)

    def _read_splits(self) -> dict[str, str]:
        lists = {one.location: one for one in super().list_documents() if _LIST.search(one.name)}
        for document in self.list_documents():
            lists |= {one.location: one for one in document.find_siblings(_LIST_NAMES)}
        splits: dict[str, str] = {}
        for document in lists.values():
            for name, split in _read_split_list(document):
                if splits.setdefault(name, split) != split:
                    message = f"{name} is in the {split} list and in the {splits[name]} list"
                    raise CaptError(message, location=document.location, hint="Download the lists again.")
        return splits


class Flickr30kReader(_FlickrReader):
    """Reads `results_20130124.token`, or `results.csv` with lines `name.jpg| 0| caption`.

    `results.csv` has a header, and one published row lacks its last separator; the row is repaired and counted. The
    dataset has no splits, so they are hashed. If a directory or archive contains both files, the token file is read.
    """

    dataset_type = "flickr30k"
    pattern = re.compile(r"(^|/)(results_20130124\.token|results\.csv)$")
    pattern_text = "results_20130124.token or results.csv"
    example = "results_20130124.token"

    def choose_documents(self, path: str, found: list[AnnotationFile]) -> list[AnnotationFile]:
        return [document for document in found if document.name.endswith(".token")] or found

    def read_file_captions(self, document: AnnotationFile) -> Iterator[CaptionEntry | FailedRecord]:
        first = next(document.read_lines(), None)
        if isinstance(first, Line) and first.text.split("|")[0].strip() == "image_name":
            return islice(document.read_records(_read_row), 1, None)
        return super().read_file_captions(document)


def _read_split_list(document: AnnotationFile) -> Iterator[tuple[str, str]]:
    match = _LIST.search(document.name)
    split = parse_split_name(match[1]) if match else None
    for line in document.read_lines():
        if isinstance(line, FailedRecord):
            message = f"{line.reason}: {line.detail}"
            raise CaptError(message, location=line.location, hint="Download the list again.")
        yield line.text.strip(), split or ""


def _read_token(line: Line) -> CaptionEntry | FailedRecord:
    text = line.text.lstrip()
    match, repaired = _TAB.fullmatch(text), ""
    if not match:
        match, repaired = _SPACE.fullmatch(text), "space for the tab"
    if match and match[3].strip():
        return CaptionEntry(match[1], match[2], match[3], repaired=repaired)
    if match or _NO_CAPTION.fullmatch(text.rstrip()):
        return line.fail("no caption")
    return line.fail("no image#number", "expected name.jpg#0, a tab and the caption")


def _read_row(line: Line) -> CaptionEntry | FailedRecord:
    text = line.text.lstrip()
    match, repaired = _ROW.fullmatch(text), ""
    if not match:
        match, repaired = _UNSEPARATED.fullmatch(text), "missing separator"
    if not match:
        return line.fail("no image|number|caption", "expected name.jpg| 0| and the caption")
    if not match[3].strip():
        return line.fail("no caption")
    return CaptionEntry(match[1], match[2], match[3], repaired=repaired)
