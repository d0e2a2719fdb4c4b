"""Lists and opens objects by URI."""

import contextlib
import errno
import io
import os
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, BinaryIO, Literal

from features.io.bucket import Bucket, ObjectInfo
from features.io.gcs import GCSBucket
from features.io.retries import describe_unreachable
from features.io.s3 import S3Bucket
from features.io.uris import parse_uri, resolve_endpoint


def open_bucket(uri: str) -> tuple[Bucket, str]:
    """Returns the bucket of a URI, and the key; UsageError if the URI is invalid or its client is not installed."""
    scheme, bucket, key, anonymous = parse_uri(uri)
    return _cached_bucket(scheme, bucket, anonymous, resolve_endpoint(scheme), os.getpid()), key.rstrip("/")


@lru_cache(maxsize=64)
def _cached_bucket(scheme: str, name: str, anonymous: bool, endpoint: str, process: int) -> Bucket:
    """Opens each bucket once per process, because connections do not survive a fork."""
    return GCSBucket(name, anonymous) if scheme == "gs" else S3Bucket(name, anonymous, endpoint)


def directory_prefix(key: str) -> str:
    """Returns the prefix of the keys below a directory."""
    return f"{key.rstrip('/')}/" if key.strip("/") else ""


@contextlib.contextmanager
def explain_denial(uri: str) -> Iterator[None]:
    """Turns PermissionError into CaptError, because callers treat an OSError as a missing file."""
    try:
        yield
    except PermissionError as error:
        raise describe_unreachable(error, uri) from error


def classify_uri(uri: str) -> Literal["directory", "file"] | None:
    """Returns whether a URI is an object (`file`) or a prefix of objects (`directory`); None if it is neither."""
    bucket, key = open_bucket(uri.rstrip("/"))
    with explain_denial(uri):
        if key and bucket.stat(key):
            return "file"
        try:
            return "directory" if bucket.has_objects(directory_prefix(key)) else None
        except FileNotFoundError:
            return None


def list_objects(uri: str) -> Iterator[tuple[str, ObjectInfo]]:
    """Yields the objects below a URI, each with its name relative to the URI."""
    bucket, key = open_bucket(uri)
    prefix = directory_prefix(key)
    with explain_denial(uri):
        for info in bucket.list_objects(prefix):
            if not info.key.endswith("/"):
                yield info.key[len(prefix) :], info


def stat_object(uri: str) -> ObjectInfo:
    """Returns the metadata of an object; FileNotFoundError if it does not exist."""
    bucket, key = open_bucket(uri)
    info = bucket.stat(key) if key else None
    if info is None:
        raise FileNotFoundError(errno.ENOENT, "no such object", uri)
    return info


def open_object(uri: str, buffer_size: int) -> BinaryIO:
    """Opens an object, read in ranges of at least `buffer_size` bytes; FileNotFoundError if it does not exist."""
    info = stat_object(uri)
    return io.BufferedReader(_ObjectFile(open_bucket(uri)[0], info), buffer_size)


class _ObjectFile(io.RawIOBase):
    """An object as a seekable file."""

    def __init__(self, bucket: Bucket, info: ObjectInfo) -> None:
        self._bucket, self._info = bucket, info
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._info.size}[whence]
        if position < 0:
            raise OSError(errno.EINVAL, "negative position")
        self._position = position
        return position

    def readinto(self, buffer: Any, /) -> int:
        size = min(len(buffer), self._info.size - self._position)
        if size <= 0:
            return 0
        data = self._bucket.read(self._info.key, self._position, self._position + size)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
