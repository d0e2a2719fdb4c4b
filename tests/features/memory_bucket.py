"""Replaces buckets by one in memory, for tests that make many requests."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

from features.io.bucket import ObjectInfo

BUCKET = "memory"


class MemoryBucket:
    """A bucket (`features.io.bucket.Bucket`) in memory.

    Args:
        before: Called with the request and the key before each request that other readers or writers may notice.
        now: Returns the time of the service, in nanoseconds since 1970.
    """

    def __init__(self, before: Callable[[str, str], None], now: Callable[[], int]) -> None:
        self.objects: dict[str, tuple[ObjectInfo, bytes]] = {}
        self._before = before
        self._now = now

    def stat(self, key: str) -> ObjectInfo | None:
        return self.objects[key][0] if key in self.objects else None

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        self._before("list", prefix)
        return iter([self.objects[key][0] for key in sorted(self.objects) if key.startswith(prefix)])

    def list_level(self, prefix: str) -> tuple[list[str], list[ObjectInfo]]:
        self._before("list", prefix)
        keys = [key for key in sorted(self.objects) if key.startswith(prefix)]
        nested = {prefix + key[len(prefix) :].partition("/")[0] + "/" for key in keys if "/" in key[len(prefix) :]}
        return sorted(nested), [self.objects[key][0] for key in keys if "/" not in key[len(prefix) :]]

    def has_objects(self, prefix: str) -> bool:
        return any(key.startswith(prefix) for key in self.objects)

    def read(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        if key not in self.objects:
            raise FileNotFoundError(2, "no such object", key)
        return self.objects[key][1][start:end]

    def read_within(self, key: str, max_bytes: int) -> bytes | None:
        data = self.read(key)
        return data if len(data) <= max_bytes else None

    def put(self, key: str, data: bytes) -> None:
        self._before("put", key)
        self._put(key, data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self._before("put_if_absent", key)
        if key in self.objects:
            return False
        self._put(key, data)
        return True

    def upload(self, source: Path, key: str) -> None:
        self.put(key, source.read_bytes())

    def download(self, key: str, size: int, target: Path) -> str:
        target.write_bytes(self.read(key))
        return self.hash_object(key, size)

    def hash_object(self, key: str, size: int) -> str:
        return hashlib.sha256(self.read(key)).hexdigest()

    def delete(self, key: str) -> None:
        self._before("delete", key)
        self.objects.pop(key, None)

    def shift(self, seconds: float) -> None:
        """Makes every object older."""
        for key, (info, data) in list(self.objects.items()):
            older = replace(info, modified_ns=info.modified_ns - round(seconds * 1e9))
            self.objects[key] = (older, data)

    def _put(self, key: str, data: bytes) -> None:
        info = ObjectInfo(key, len(data), self._now(), hashlib.sha256(data).hexdigest())
        self.objects[key] = (info, data)


@contextmanager
def serving(bucket: MemoryBucket) -> Iterator[str]:
    """Replaces all buckets by this one while the block runs; yields the URI of a store in it."""

    def open_bucket(uri: str) -> tuple[MemoryBucket, str]:
        return bucket, uri.partition("://")[2].partition("/")[2]

    with mock.patch("features.io.objects.open_bucket", open_bucket):
        yield f"s3://{BUCKET}/store"
