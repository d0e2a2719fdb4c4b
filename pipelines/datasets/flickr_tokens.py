"""Token files, the format of Flickr8k and Flickr30k: lines `name.jpg#0<TAB>caption`.

Copies in the wild have a space where the tab should be, on some lines; they are mended, and counted as such.
"""

import re
from collections.abc import Iterator

from pipelines.datasets.annotation_files import AnnotationFile
from pipelines.datasets.base import CaptionEntry, FailedRecord
from pipelines.datasets.lines import Line

MENDED = "space for the tab"

_TAB = re.compile(r"([^\t]*\S)#(\d+)[ ]*\t(.*)", re.DOTALL)
_SPACE = re.compile(r"(\S+)#(\d+) +(.*)", re.DOTALL)
_BARE = re.compile(r"\S.*#\d+")


def read_token_captions(document: AnnotationFile) -> Iterator[CaptionEntry | FailedRecord]:
    """The captions of a token file: the image's id is its file's name, the caption's its number."""
    return document.records(_caption)


def _caption(line: Line) -> CaptionEntry | FailedRecord:
    text = line.text.lstrip()
    match, repaired = _TAB.fullmatch(text), ""
    if not match:
        match, repaired = _SPACE.fullmatch(text), MENDED
    if match and match[3].strip():
        return CaptionEntry(match[1], match[2], match[3], repaired=repaired)
    if match or _BARE.fullmatch(text.rstrip()):
        return line.malformed("no caption")
    return line.malformed("no image#number", "expected name.jpg#0, a tab and the caption")
