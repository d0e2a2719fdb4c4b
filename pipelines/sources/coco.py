"""COCO captions: `captions_{train,val}{2014,2017}.json`, as files or inside their published zip.

Format: https://cocodataset.org/#format-data: `images[{id, file_name}]`, `annotations[{id, image_id, caption}]`.
The split is the one in the file's name, train20xx or val20xx.
"""

import json
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pipelines.sources.base import CaptionEntry, ImageEntry
from schemas.errors import CaptError, UsageError

_SPLIT = re.compile(r"(train|val|test)\d{4}")
_CAPTIONS = re.compile(r"captions_[^/]*\.json$")


class Coco:
    """COCO's annotation files, several together."""

    lists_images = True

    def __init__(self, annotations: Sequence[str]) -> None:
        if not annotations:
            raise UsageError(
                "coco needs its annotation files", where="--annotations", mend="name captions_train2017.json, say"
            )
        self._annotations = annotations

    def images(self) -> Iterator[ImageEntry]:
        """The images of all files."""
        for where, data in self._files():
            for place, image in _records(data, "images", where):
                yield ImageEntry(
                    str(_value(image, "id", place)), str(_value(image, "file_name", place)), _split_of(where)
                )

    def captions(self) -> Iterator[CaptionEntry]:
        """The captions of all files."""
        for where, data in self._files():
            for place, annotation in _records(data, "annotations", where):
                yield CaptionEntry(
                    str(_value(annotation, "image_id", place)),
                    str(_value(annotation, "id", place)),
                    str(_value(annotation, "caption", place)),
                    _split_of(where),
                )

    def _files(self) -> Iterator[tuple[str, Any]]:
        for name in self._annotations:
            path = Path(name)
            if not path.is_file():
                raise UsageError("no such annotation file", where=name, mend="check --annotations")
            if not zipfile.is_zipfile(path):
                yield name, _parse(path.read_bytes(), name)
                continue
            with zipfile.ZipFile(path) as archive:
                members = sorted(member for member in archive.namelist() if _CAPTIONS.search(member))
                if not members:
                    raise UsageError("the archive holds no captions_*.json", where=name)
                for member in members:
                    yield f"{name}/{member}", _parse(archive.read(member), f"{name}/{member}")


def _parse(data: bytes, where: str) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise CaptError(f"not JSON: {error}", where=where, mend="fetch the file again") from error


def _records(data: Any, key: str, where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not isinstance(data, dict) or not isinstance(data.get(key), list):
        raise CaptError(f"the list {key!r} is missing", where=where, mend="is this a COCO captions file?")
    for number, record in enumerate(data[key]):
        yield f"{where}: {key}[{number}]", record


def _value(record: Mapping[str, Any], key: str, place: str) -> Any:
    try:
        return record[key]
    except (KeyError, TypeError):
        raise CaptError(f"the key {key!r} is missing", where=place, mend="is this a COCO captions file?") from None


def _split_of(where: str) -> str | None:
    found = _SPLIT.search(PurePosixPath(where).name)
    return found[1] if found else None
