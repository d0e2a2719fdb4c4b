"""Reads the token files of Flickr8k and Flickr30k: lines `name.jpg#0<TAB>caption`.

Some copies have a space instead of the tab in some lines. Such lines are repaired and counted.
"""

import re
from collections.abc import Iterable, Iterator

from pipelines.datasets.annotation_files import AnnotationFile
from pipelines.datasets.base import CaptionEntry, FailedRecord
from pipelines.datasets.lines import Line

_REPAIRED = "space for the tab"

_TAB = re.compile(r"([^\t]*\S)#(\d+)[ ]*\t(.*)", re.DOTALL)
_SPACE = re.compile(r"(\S+)#(\d+) +(.*)", re.DOTALL)
_NO_CAPTION = re.compile(r"\S.*#\d+")


def read_token_captions(document: AnnotationFile) -> Iterator[CaptionEntry | FailedRecord]:
    """Yields the captions of a token file. An image's ID is its file name; a caption's ID is its number."""
    return document.read_records(_read_caption)


def list_captioned_images(captions: Iterable[CaptionEntry | FailedRecord]) -> list[tuple[str, str]]:
    """Returns image ID and annotation file of each image that has a caption, in file order."""
    return list(dict.fromkeys((one.image_id, one.document) for one in captions if isinstance(one, CaptionEntry)))


def _read_caption(line: Line) -> CaptionEntry | FailedRecord:
    text = line.text.lstrip()
    match, repaired = _TAB.fullmatch(text), ""
    if not match:
        match, repaired = _SPACE.fullmatch(text), _REPAIRED
    if match and match[3].strip():
        return CaptionEntry(match[1], match[2], match[3], repaired=repaired)
    if match or _NO_CAPTION.fullmatch(text.rstrip()):
        return line.fail("no caption")
    return line.fail("no image#number", "expected name.jpg#0, a tab and the caption")
