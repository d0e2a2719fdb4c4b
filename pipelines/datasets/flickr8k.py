"""Flickr8k: `Flickr8k.token.txt` and its split lists, as files, in a directory, or in the published Flickr8k_text.zip.

The lists, `Flickr_8k.{train,dev,test}Images.txt`, hold an image's name a line. They are taken from --annotations, and
from beside the token file; dev is val. Where there is any, images outside them are `unused`; where there is none,
splits are hashed. One image that has captions was never published, `2258277193_586949ec62.jpg.1`: its features fail
as missing.
"""

import logging
import re
from collections.abc import Iterator, Sequence

from pipelines.datasets.annotation_files import AnnotationFile, list_annotation_files, require_annotations
from pipelines.datasets.base import CaptionEntry, FailedRecord, ImageEntry, set_document
from pipelines.datasets.flickr_tokens import read_token_captions
from pipelines.datasets.record_fields import parse_split_name
from schemas.errors import CaptError, UsageError

_log = logging.getLogger("capt.prepare")

_LISTS = tuple(f"Flickr_8k.{split}Images.txt" for split in ("train", "dev", "test"))
_LIST = re.compile(r"(train|dev|test)Images\.txt$")
_FILES = re.compile(r"(^|/)(Flickr8k\.token|Flickr_8k\.(train|dev|test)Images)\.txt$")


class Flickr8kReader:
    """Flickr8k's captions with its own splits."""

    max_failures = "5%"

    def __init__(self, annotations: Sequence[str]) -> None:
        self._annotations = require_annotations(annotations, "flickr8k", "Flickr8kReader.token.txt")

    def images(self) -> Iterator[ImageEntry]:
        """The images that have captions, in the file's order."""
        names = dict.fromkeys((one.image_id, one.document) for one in self.captions() if isinstance(one, CaptionEntry))
        splits = self._splits()
        strays = splits.keys() - {name for name, _ in names}
        if strays:
            message = "names in the split lists that no caption has"
            _log.warning("%s: %d, such as %s. They decide no split.", message, len(strays), min(strays))
        return (
            ImageEntry(name, name, splits.get(name, "unused") if splits else None, document=document)
            for name, document in names
        )

    def captions(self) -> Iterator[CaptionEntry | FailedRecord]:
        """The captions, in the file's order."""
        for document in self._tokens():
            yield from set_document(document.location, read_token_captions(document))

    def _documents(self) -> list[AnnotationFile]:
        return list(list_annotation_files(self._annotations, _FILES, "Flickr8kReader.token.txt"))

    def _tokens(self) -> list[AnnotationFile]:
        found = [document for document in self._documents() if not _LIST.search(document.name)]
        if not found:
            location = ", ".join(self._annotations)
            raise UsageError("no token file, only split lists", location=location, hint="name Flickr8k.token.txt too")
        return found

    def _splits(self) -> dict[str, str]:
        """The split of each image on a list."""
        lists = {one.location: one for one in self._documents() if _LIST.search(one.name)}
        for document in self._tokens():
            lists |= {one.location: one for one in document.beside(_LISTS)}
        splits: dict[str, str] = {}
        for document in lists.values():
            for name, split in _listed(document):
                if splits.setdefault(name, split) != split:
                    message = f"{name} is in the {split} list and in the {splits[name]} list"
                    raise CaptError(message, location=document.location, hint="fetch the lists again")
        return splits


def _listed(document: AnnotationFile) -> Iterator[tuple[str, str]]:
    match = _LIST.search(document.name)
    split = parse_split_name(match[1]) if match else None
    for line in document.lines():
        if isinstance(line, FailedRecord):
            raise CaptError(f"{line.reason}: {line.detail}", location=line.place, hint="fetch the list again")
        yield line.text.strip(), split or ""
