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
_MAX_BYTES = 2 << 30


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
                    _text(_value(image, "id", place)), _text(_value(image, "file_name", place)), _split_of(where)
                )

    def captions(self) -> Iterator[CaptionEntry]:
        """The captions of all files."""
        for where, data in self._files():
            for place, annotation in _records(data, "annotations", where):
                yield CaptionEntry(
                    _text(_value(annotation, "image_id", place)),
                    _text(_value(annotation, "id", place)),
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
            yield from _members(path, name)


def _members(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # zipfile raises nearly any class on archives that were made to confuse it.
        raise CaptError(f"the archive cannot be read: {error}", where=name, mend="fetch the file again") from error
    with archive:
        members = sorted(member for member in archive.namelist() if _CAPTIONS.search(member))
        if not members:
            raise UsageError("the archive holds no captions_*.json", where=name)
        for member in members:
            yield f"{name}/{member}", _parse(_unpacked(archive, member, f"{name}/{member}"), f"{name}/{member}")


def _unpacked(archive: zipfile.ZipFile, member: str, where: str) -> bytes:
    info = archive.getinfo(member)
    if info.file_size > _MAX_BYTES:
        raise CaptError(f"it unpacks to {info.file_size:,} bytes, and {_MAX_BYTES:,} are the limit", where=where)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise CaptError("it is compressed in another way than a zip's usual one", where=where, mend="pack it again")
    try:
        with archive.open(info) as file:
            return file.read(info.file_size)
    except Exception as error:  # As above.
        raise CaptError(f"it cannot be unpacked: {error}", where=where, mend="fetch the file again") from error


def _parse(data: bytes, where: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
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


def _text(value: Any) -> str:
    """The value as text that any table can hold: half a surrogate pair, which JSON can write, as it is written."""
    return str(value).encode("utf-8", "backslashreplace").decode()


def _split_of(where: str) -> str | None:
    found = _SPLIT.search(PurePosixPath(where).name)
    return found[1] if found else None
