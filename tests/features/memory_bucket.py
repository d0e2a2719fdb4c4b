"""A bucket in memory that has the interface of `features.io.bucket.Bucket`, for tests that make many requests."""

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

from features.io.bucket import Listed

BUCKET = "memory"


class MemoryBucket:
    """Objects by key.

    Args:
        before: Called before each request that another writer or reader may see, with what is asked and the key.
    """

    def __init__(self, before: Callable[[str, str], None], now: Callable[[], int]) -> None:
        self.objects: dict[str, tuple[Listed, bytes, str]] = {}
        self._before = before
        self._now = now

    def look(self, key: str) -> Listed | None:
        found = self.objects.get(key)
        return found[0] if found else None

    def below(self, prefix: str) -> Iterator[Listed]:
        self._before("list", prefix)
        return iter([self.objects[key][0] for key in sorted(self.objects) if key.startswith(prefix)])

    def level(self, prefix: str) -> tuple[list[str], list[Listed]]:
        self._before("list", prefix)
        keys = [key for key in sorted(self.objects) if key.startswith(prefix)]
        nested = {prefix + key[len(prefix) :].partition("/")[0] + "/" for key in keys if "/" in key[len(prefix) :]}
        return sorted(nested), [self.objects[key][0] for key in keys if "/" not in key[len(prefix) :]]

    def has_below(self, prefix: str) -> bool:
        return any(key.startswith(prefix) for key in self.objects)

    def read(self, key: str) -> bytes:
        if key not in self.objects:
            raise FileNotFoundError(2, "no such object", key)
        return self.objects[key][1]

    def put(self, key: str, data: bytes) -> None:
        self._before("put", key)
        self._put(key, data, "")

    def put_if_absent(self, key: str, data: bytes, writer: str) -> bool:
        self._before("put_if_absent", key)
        if key not in self.objects:
            self._put(key, data, writer)
        return self.objects[key][2] == writer

    def delete(self, key: str) -> None:
        self._before("delete", key)
        self.objects.pop(key, None)

    def shift(self, seconds: float) -> None:
        """Make every object older."""
        for key, (listed, data, writer) in list(self.objects.items()):
            older = replace(listed, modified_ns=listed.modified_ns - round(seconds * 1e9))
            self.objects[key] = (older, data, writer)

    def _put(self, key: str, data: bytes, writer: str) -> None:
        listed = Listed(key, len(data), self._now(), hashlib.sha256(data).hexdigest())
        self.objects[key] = (listed, data, writer)


@contextmanager
def serving(bucket: MemoryBucket) -> Iterator[str]:
    """Have all addresses lead to the bucket while the block runs; the address of a store in it."""

    def bucket_of(address: str) -> tuple[MemoryBucket, str]:
        return bucket, address.partition("://")[2].partition("/")[2]

    def upload(source: Path, address: str) -> None:
        bucket.put(bucket_of(address)[1], source.read_bytes())

    def download(address: str, size: int, target: Path) -> str:
        data = bucket.read(bucket_of(address)[1])
        target.write_bytes(data)
        return hashlib.sha256(data).hexdigest()

    def digest_of(address: str, size: int) -> str:
        return hashlib.sha256(bucket.read(bucket_of(address)[1])).hexdigest()

    with (
        mock.patch("features.io.locations.bucket_of", bucket_of),
        mock.patch("features.io.locations.upload", upload),
        mock.patch("features.io.cache.download", download),
        mock.patch("features.io.cache.digest_of", digest_of),
    ):
        yield f"s3://{BUCKET}/store"
