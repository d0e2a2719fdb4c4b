"""Represents objects in buckets as `pathlib` paths.

`s3://bucket/prefix/name` is a path with the parts `s3:`, `bucket`, `prefix` and `name`. Every query sends a new
request. A directory exists while an object exists below it. Functions that need a local file (`os.open`,
`numpy.memmap`, `pyarrow.parquet`) need `features.io.atomic_files.ensure_local`.
"""

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PosixPath
from typing import Any

from features.io import objects
from features.io.bucket import Bucket, ObjectInfo
from features.io.cache_paths import cache_path
from features.io.objects import directory_prefix, explain_denial
from schemas.errors import CaptError

ROOTS = ("s3:/", "gs:/")


class ObjectPath(PosixPath):
    """A path in a bucket. Methods that are not defined here raise TypeError instead of using a local file."""

    def __str__(self) -> str:
        text = super().__str__()
        return text.replace(":/", "://", 1) if text.startswith(ROOTS) else text

    def __fspath__(self) -> str:
        raise TypeError(f"{self} is an object, not a local file")

    def absolute(self) -> "ObjectPath":
        return self

    @property
    def working_path(self) -> Path:
        """The local path at which this machine works on the object or directory."""
        return cache_path(str(self), "local")

    def _open(self) -> tuple[Bucket, str]:
        return objects.open_bucket(str(self))

    # === Queries ===

    def object_info(self) -> ObjectInfo | None:
        """Returns the metadata of the object; None if the object does not exist."""
        bucket, key = self._open()
        with explain_denial(str(self)):
            return bucket.stat(key) if key else None

    def require_info(self) -> ObjectInfo:
        """Returns the metadata of the object; FileNotFoundError if it does not exist."""
        with explain_denial(str(self)):
            return objects.stat_object(str(self))

    def exists(self, **_: Any) -> bool:
        return self.is_file() or self.is_dir()

    def is_file(self, **_: Any) -> bool:
        return self.object_info() is not None

    def is_dir(self, **_: Any) -> bool:
        """Returns whether an object below exists."""
        with explain_denial(str(self)), self._require_bucket() as (bucket, key):
            return bucket.has_objects(directory_prefix(key))

    def stat(self, **_: Any) -> os.stat_result:
        """Returns the size and time of the object; FileNotFoundError if it does not exist."""
        info = self.require_info()
        seconds = info.modified_ns / 1e9
        values = (stat.S_IFREG | 0o644, 0, 0, 1, 0, 0, info.size, *[int(seconds)] * 3)
        return os.stat_result(values, {"st_mtime": seconds, "st_mtime_ns": info.modified_ns})

    def lstat(self) -> os.stat_result:
        return self.stat()  # Buckets have no links.

    def iterdir(self) -> Iterator["ObjectPath"]:  # type: ignore[override]
        """Yields the objects and directories directly below."""
        with explain_denial(str(self)), self._require_bucket() as (bucket, key):
            prefixes, infos = bucket.list_level(directory_prefix(key))
        names = {prefix.rstrip("/").rpartition("/")[2] for prefix in prefixes}
        names |= {info.key.rpartition("/")[2] for info in infos}
        yield from (self / name for name in sorted(names - {""}))

    def list_tree(self) -> list[tuple["ObjectPath", ObjectInfo]]:
        """Lists every object below, ordered by key."""
        with self._require_bucket():
            return [(self / name, info) for name, info in objects.list_objects(str(self))]

    def glob(self, pattern: str, **_: Any) -> Iterator["ObjectPath"]:  # type: ignore[override]
        """Yields the paths that match a pattern of names; a leading `**` matches any directories."""
        first, _slash, rest = pattern.partition("/")
        if first == "**":
            yield from (path for path, _ in self.list_tree() if fnmatchcase(path.name, rest))
            return
        is_pattern = any(sign in first for sign in "*?[")
        for path in self.iterdir() if is_pattern else [self / first]:
            if is_pattern and not fnmatchcase(path.name, first):
                continue
            if rest:
                yield from path.glob(rest)
            elif is_pattern or path.exists():
                yield path

    # === Reading and writing ===

    def read_bytes(self) -> bytes:
        bucket, key = self._open()
        with explain_denial(str(self)):
            return bucket.read(key)

    def read_text(self, encoding: str | None = None, errors: str | None = None, **_: Any) -> str:
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def open(self, mode: str = "rb", *_: Any, **__: Any) -> io.BytesIO:  # type: ignore[override]
        """Reads a small object and returns it as a file."""
        if mode != "rb":
            raise ValueError(f"objects can only be opened with mode 'rb', not {mode!r}")
        return io.BytesIO(self.read_bytes())

    def put(self, data: bytes) -> None:
        """Puts the object, or replaces it; PermissionError if the service denies the request."""
        with self._require_bucket() as (bucket, key):
            bucket.put(key, data)

    def put_if_absent(self, data: bytes) -> bool:
        """Puts the object unless one exists; returns whether this call put it, also if a response was lost."""
        with self._require_bucket() as (bucket, key):
            return bucket.put_if_absent(key, data)

    def upload(self, source: Path) -> None:
        """Puts a local file of any size; PermissionError if the service denies the request."""
        with self._require_bucket() as (bucket, key):
            bucket.upload(source, key)

    def download(self, info: ObjectInfo, target: Path) -> str:
        """Writes the object, of the size in `info`, to a local file and returns its SHA-256."""
        bucket, key = self._open()
        return bucket.download(key, info.size, target)

    def hash_object(self, info: ObjectInfo) -> str:
        """Reads the object, of the size in `info`, and returns its SHA-256."""
        bucket, key = self._open()
        return bucket.hash_object(key, info.size)

    def unlink(self, missing_ok: bool = False) -> None:
        if not missing_ok:
            self.require_info()
        bucket, key = self._open()
        bucket.delete(key)

    def remove_tree(self) -> None:
        """Deletes every object below."""
        for path, _ in self.list_tree():
            path.unlink(missing_ok=True)

    def mkdir(self, *_: Any, **__: Any) -> None:
        """Does nothing, because a directory exists while an object exists below it."""

    def rmdir(self) -> None:
        """Does nothing, as `mkdir`."""

    @contextlib.contextmanager
    def _require_bucket(self) -> Iterator[tuple[Bucket, str]]:
        """Yields the bucket and the key; FileNotFoundError of a request becomes CaptError: the bucket is missing."""
        opened = self._open()
        try:
            yield opened
        except FileNotFoundError as error:
            hint = "Create the bucket, or check the URI."
            raise CaptError("the bucket does not exist", location=str(self), hint=hint) from error
