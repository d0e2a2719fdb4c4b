"""Finds single rows of a table and reads their values, through the indexes of the table's shards.

    key → shards of its prefix → binary search in the index → offset in the shard file → value

A look-up reads about log2(rows) keys of one index per commit. The checksum of a file is verified when the file is first
opened. A limited number of files is kept open.
"""

import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from features.store.corruption import check_file
from features.store.shards import find_shard, read_index, value_span
from schemas.compression import decompress
from schemas.errors import CorruptFileError, UsageError
from schemas.manifests import Shard
from schemas.tables import KEY_BYTES, Field, Table

MAX_OPEN = 256

Value = TypeVar("Value")


class OpenShards:
    """The live shards of a table snapshot, oldest commit first, opened when they are first read.

    At most `max_open` data files and as many indexes are open at a time.
    """

    def __init__(self, root: Path, shards: Sequence[Shard], table: Table, max_open: int) -> None:
        self._root = root
        self._shards = shards
        self._table = table
        self._check = cache(lambda entry: check_file(root, entry))
        self._indexes: _OpenCache[NDArray[Any]] = _OpenCache(max_open)
        self._files: _OpenCache[_Descriptor] = _OpenCache(max_open)
        self._numbers: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        for number, shard in enumerate(shards):
            self._numbers[shard.count, shard.number].append(number)
        self._counts = sorted({shard.count for shard in shards})

    def find(self, key: bytes) -> tuple[int, int] | None:
        """Returns the shard that contains a key, and the row in it; of the oldest commit if several contain the key."""
        candidates = (n for count in self._counts for n in self._numbers.get((count, find_shard(key, count)), ()))
        for number in sorted(candidates):
            keys = self.index(number)["key"]
            row = first_row(keys, key)
            if row < len(keys) and keys[row].tobytes() == key:
                return number, row
        return None

    def read(self, rows: Sequence[tuple[int, int]], field: Field, out: NDArray[np.generic]) -> None:
        """Reads a tensor column of rows, given as (shard, row), into an array [N, *shape] of its dtype."""
        raw = out.view(np.uint8).reshape(len(out), field.nbytes)
        for target, (number, row) in zip(raw, rows, strict=True):
            self._read_value(number, self.index(number)[row], field, target)

    def index(self, number: int) -> NDArray[Any]:
        """Returns the index of a shard, mapped into memory."""
        return self._indexes.get(number, self._open_index)

    def read_bytes(self, number: int, offset: int, size: int) -> bytes:
        """Reads bytes of a shard's data file."""
        descriptor = self._files.get(number, self._open_file)
        data = os.pread(descriptor.number, size, offset)
        self._check_size(number, len(data), size)
        return data

    def _read_value(self, number: int, entry: Any, field: Field, out: Any) -> None:
        offset, size = map(int, value_span(entry, field))
        if field.compression == "none":
            descriptor = self._files.get(number, self._open_file)
            self._check_size(number, os.preadv(descriptor.number, [out], offset), size)
        else:
            data = self.read_bytes(number, offset, size)
            out[:] = np.frombuffer(decompress(data, field.compression, field.nbytes), np.uint8)

    def _check_size(self, number: int, got: int, size: int) -> None:
        if got != size:
            path = self._root / self._shards[number].data.path
            raise CorruptFileError("the shard ends within a row", location=str(path))

    def _open_file(self, number: int) -> "_Descriptor":
        return _Descriptor(self._check(self._shards[number].data))

    def _open_index(self, number: int) -> NDArray[Any]:
        entry = self._shards[number].index
        assert entry is not None
        return read_index(self._check(entry), self._table).view(np.ndarray)


class _Descriptor:
    """A file open for reading. It is closed with its last reference, so that no reader loses it during a read."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class _OpenCache(Generic[Value]):
    """The most recently opened values, by number. Threads share them, and each is opened once."""

    def __init__(self, max_open: int) -> None:
        self._max_open = max_open
        self._values: dict[int, Value] = {}
        self._lock = Lock()

    def get(self, number: int, open_value: Callable[[int], Value]) -> Value:
        value = self._values.get(number)
        if value is not None:
            return value
        with self._lock:
            if number not in self._values:
                opened = open_value(number)
                while len(self._values) >= self._max_open:
                    del self._values[next(iter(self._values))]
                self._values[number] = opened
            return self._values[number]


def first_row(keys: NDArray[np.uint8], key: bytes) -> int:
    """Returns the first row, by binary search, whose key in the ascending keys uint8 [N, 32] is not below `key`."""
    return bisect_left(range(len(keys)), key, key=lambda row: keys[row].tobytes())


def key_bytes(key: bytes | str) -> bytes:
    """Returns a key's 32 bytes, from bytes or 64 hexadecimal digits; raises UsageError if it has another form."""
    try:
        data = bytes.fromhex(key) if isinstance(key, str) else bytes(key)
    except ValueError:
        data = b""
    if len(data) != KEY_BYTES:
        raise UsageError(f"invalid key {key!r}", hint=f"Use {KEY_BYTES} bytes or {2 * KEY_BYTES} hexadecimal digits.")
    return data
