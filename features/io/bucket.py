"""Buckets: the small requests of an object store, of which `put_if_absent` decides who commits.

Bulk reads and writes go through `pyarrow.fs` (`features.io.object_transfers`), which has no conditional put.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from features.io.object_stores import ANONYMOUS, check_address, resolve_endpoint


@dataclass(frozen=True)
class Listed:
    """What a bucket says of an object.

    Args:
        key: str. Its key.
        size: int. Bytes.
        modified_ns: int. When it was put, nanoseconds since 1970, by the service's clock.
        tag: str. Another for other contents: its entity tag, or its generation.
    """

    key: str
    size: int
    modified_ns: int
    tag: str


class Bucket(Protocol):
    """One bucket. Each request is made once.

    All raise TransientError for what may pass, FileNotFoundError where there is no such object or bucket,
    PermissionError where the service does not allow it, and CaptError for everything else.
    """

    def look(self, key: str) -> Listed | None:
        """What is said of an object; None where there is none."""

    def below(self, prefix: str) -> Iterator[Listed]:
        """Every object whose key begins with `prefix`, by key."""

    def level(self, prefix: str) -> tuple[list[str], list[Listed]]:
        """The prefixes, up to their next slash and with it, and the objects directly below `prefix`."""

    def has_below(self, prefix: str) -> bool:
        """Whether any object's key begins with `prefix`."""

    def read(self, key: str) -> bytes:
        """An object's bytes, all of them."""

    def put(self, key: str, data: bytes) -> None:
        """Put an object whole, in place of what was there."""

    def put_if_absent(self, key: str, data: bytes, writer: str) -> bool:
        """Put an object only where none is; whether `writer` put it.

        Args:
            key: str. Its key.
            data: bytes. Its bytes.
            writer: str. Names this very put: where the answer to an earlier attempt was lost, the object tells by it
                whether it came of that.
        """

    def delete(self, key: str) -> None:
        """Delete an object; nothing where there is none."""


def open_bucket(address: str) -> tuple[Bucket, str]:
    """The bucket of an address, and the key in it.

    Raises:
        UsageError: the address is none, or what speaks to its service is not installed.
    """
    check_address(address)
    scheme, _, rest = address.partition("://")
    named, _, key = rest.partition("/")
    user, _, name = named.rpartition("@")
    return _bucket(scheme, name, user == ANONYMOUS, resolve_endpoint(scheme), os.getpid()), key


@lru_cache(maxsize=64)
def _bucket(scheme: str, name: str, anonymous: bool, endpoint: str, process: int) -> Bucket:
    """One client a bucket and process: connections do not survive a fork."""
    if scheme == "gs":
        from features.io.gcs import GCSBucket

        return GCSBucket(name, anonymous)
    from features.io.s3 import S3Bucket

    return S3Bucket(name, anonymous, endpoint)
