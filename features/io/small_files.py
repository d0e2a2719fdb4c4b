"""Reads the small files of a directory; in a bucket, one listing finds the new or changed files to download."""

import contextlib
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from features.io.bucket import ObjectInfo
from features.io.cache_paths import cache_path, replace_file
from features.io.object_path import ObjectPath

_THREADS = 8


class SmallFiles:
    """The small files directly in a directory.

    Files in a bucket are read at once, as one listing contains them. Local files are read when they are requested,
    because a listing during writes may lack an older file. The directory may be missing.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._contents = _read_objects(directory) if isinstance(directory, ObjectPath) else None

    def names(self) -> Collection[str]:
        return [path.name for path in self._directory.glob("*")] if self._contents is None else self._contents

    def read(self, name: str) -> bytes | None:
        """Reads a file; returns None if it is missing."""
        if self._contents is not None:
            return self._contents.get(name)
        try:
            return (self._directory / name).read_bytes()
        except FileNotFoundError:
            return None


def _read_objects(directory: ObjectPath) -> dict[str, bytes]:
    listed = [(path, info) for path, info in directory.list_tree() if path.parent == directory]
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="small-files") as pool:
        contents = pool.map(lambda item: _read_object(*item), listed)
        return {path.name: data for (path, _), data in zip(listed, contents, strict=True) if data is not None}


def _read_object(path: ObjectPath, info: ObjectInfo) -> bytes | None:
    """Returns the bytes of a listed object; None if it has been deleted since."""
    copy, header = cache_path(str(path), "small"), f"{info.tag} {info.modified_ns}\n".encode()
    with contextlib.suppress(OSError):
        cached = copy.read_bytes()
        if cached.startswith(header):
            return cached[len(header) :]
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    if len(data) == info.size:
        replace_file(copy, header + data)
    return data
