"""Buckets: what lies at `s3://` and `gs://` addresses."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

from features.io.object_files import ObjectFile
from features.io.object_stores import describe_unreachable, open_object_store, shorten_error


@dataclass(frozen=True)
class ObjectInfo:
    """What a bucket says of an address.

    Args:
        kind: `directory`, `file`, or None where nothing is there.
        name: str. Path below what was listed.
        location: str. Its address.
        size: int. Bytes.
        modified_ns: int. When the object was put, nanoseconds since 1970.
    """

    kind: Literal["directory", "file"] | None
    name: str
    location: str
    size: int
    modified_ns: int


def stat_object(address: str) -> ObjectInfo:
    """What lies at an address; CaptError where that cannot be told."""
    filesystem, path = open_object_store(address)
    try:
        return _seen(filesystem.get_file_info(path), "", address)
    except OSError as error:
        raise describe_unreachable(error, address) from error


def list_objects(address: str) -> Iterator[ObjectInfo]:
    """The objects whose keys begin with the address and a slash; CaptError where they cannot be listed."""
    from pyarrow.fs import FileSelector

    filesystem, path = open_object_store(address)
    try:
        listed = filesystem.get_file_info(FileSelector(path, recursive=True))
    except OSError as error:
        raise describe_unreachable(error, address) from error
    root = address.rstrip("/")
    for info in listed:
        name = info.path[len(path) + 1 :]
        seen = _seen(info, name, f"{root}/{name}")
        if seen.kind == "file":
            yield seen


def open_object(address: str, buffer: int) -> BinaryIO:
    """An object, read by ranges of `buffer` bytes at least; OSError where it cannot be, of one line."""
    filesystem, path = open_object_store(address)
    try:
        return io.BufferedReader(ObjectFile(filesystem.open_input_file(path)), buffer)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise OSError(shorten_error(error)) from error


def entity_tag(address: str) -> str:
    """The tag or generation by which a service tells an object's contents apart; listings do not give it."""
    filesystem, path = open_object_store(address)
    with filesystem.open_input_file(path) as file:
        told = file.metadata() or {}
    tag = told.get("ETag") or told.get("generation") or b""
    return str(tag.decode()).strip('"')


def _seen(info: Any, name: str, location: str) -> ObjectInfo:
    from pyarrow.fs import FileType

    kind: Literal["directory", "file"] | None = None
    if info.type == FileType.File:
        kind = "file"
    elif info.type == FileType.Directory:
        kind = "directory"
    return ObjectInfo(kind, name, location, info.size or 0, info.mtime_ns or 0)
