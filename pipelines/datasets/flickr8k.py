"""Reads Flickr8k: `Flickr8k.token.txt` and its split lists, as files, in a directory, or in Flickr8k_text.zip.

The lists `Flickr_8k.{train,dev,test}Images.txt` contain one image name per line. They are read from --annotations and
from the directory of the token file; dev becomes val. With any list, images on no list are `unused`; without lists,
splits are hashed. The captioned image `2258277193_586949ec62.jpg.1` was never published. It fails as missing.
"""

import logging
import re
from collections.abc import Iterator

from pipelines.datasets.annotation_files import AnnotationFile, AnnotationReader
from pipelines.datasets.base import CaptionEntry, FailedRecord, ImageEntry, set_document
from pipelines.datasets.flickr_tokens import list_captioned_images, read_token_captions
from pipelines.datasets.record_fields import parse_split_name
from schemas.errors import CaptError, UsageError

_log = logging.getLogger("capt.prepare")

_LIST_NAMES = tuple(f"Flickr_8k.{split}Images.txt" for split in ("train", "dev", "test"))
_LIST = re.compile(r"(train|dev|test)Images\.txt$")


class Flickr8kReader(AnnotationReader):
    """Reads the captions of Flickr8k and its splits."""

    dataset_type = "flickr8k"
    pattern = re.compile(r"(^|/)(Flickr8k\.token|Flickr_8k\.(train|dev|test)Images)\.txt$")
    pattern_text = example = "Flickr8k.token.txt"

    def read_images(self) -> Iterator[ImageEntry]:
        images = list_captioned_images(self.read_captions())
        splits = self._read_splits()
        unknown = splits.keys() - {name for name, _ in images}
        if unknown:
            message = "names in the split lists have no caption"
            _log.warning("%s: %d, such as %s. They are ignored.", message, len(unknown), min(unknown))
        return (
            ImageEntry(name, name, splits.get(name, "unused") if splits else None, document=document)
            for name, document in images
        )

    def read_captions(self) -> Iterator[CaptionEntry | FailedRecord]:
        for document in self._list_token_files():
            yield from set_document(document.location, read_token_captions(document))

    def _list_token_files(self) -> list[AnnotationFile]:
        found = [document for document in self.list_documents() if not _LIST.search(document.name)]
        if not found:
            location = ", ".join(self.annotations)
            raise UsageError("no token file, only split lists", location=location, hint="Add Flickr8k.token.txt.")
        return found

    def _read_splits(self) -> dict[str, str]:
        lists = {one.location: one for one in self.list_documents() if _LIST.search(one.name)}
        for document in self._list_token_files():
            lists |= {one.location: one for one in document.find_siblings(_LIST_NAMES)}
        splits: dict[str, str] = {}
        for document in lists.values():
            for name, split in _read_list(document):
                if splits.setdefault(name, split) != split:
                    message = f"{name} is in the {split} list and in the {splits[name]} list"
                    raise CaptError(message, location=document.location, hint="Download the lists again.")
        return splits


def _read_list(document: AnnotationFile) -> Iterator[tuple[str, str]]:
    match = _LIST.search(document.name)
    split = parse_split_name(match[1]) if match else None
    for line in document.read_lines():
        if isinstance(line, FailedRecord):
            message = f"{line.reason}: {line.detail}"
            raise CaptError(message, location=line.location, hint="Download the list again.")
        yield line.text.strip(), split or ""
