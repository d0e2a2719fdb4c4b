"""Random access: where a row lies, and its values, through the indexes of a table's shards.

key → shards whose prefix it has → binary search in the index → place in the shard file → value

A look-up touches the indexes of the shards that the key can be in, one a commit, and reads about log2(rows) keys of
each. Files are checked against their checksums when they are first opened; few are kept open at a time.
"""

import os
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from features.store.corruption import check_file
from features.store.shards import find_shard, read_index, value_span
from schemas.compression import decompress
from schemas.errors import CorruptFileError, UsageError
from schemas.manifests import FileEntry, Shard
from schemas.tables import KEY_BYTES, Field, Table

_KEPT_OPEN = 256

Value = TypeVar("Value")


class OpenShards:
    """The shards of a snapshot of a table.

    Args:
        root: Path. The table's directory.
        shards: sequence of Shard. Its live shards, oldest commit first.
        table: Table. The declaration of the rows.
    """

    def __init__(self, root: Path, shards: Sequence[Shard], table: Table) -> None:
        self._root = root
        self._shards = shards
        self._table = table
        self._checked: dict[str, Path] = {}
        self._indexes: _Kept[NDArray[Any]] = _Kept()
        self._files: _Kept[_Descriptor] = _Kept()
        self._numbers: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        for number, shard in enumerate(shards):
            self._numbers[shard.count, shard.number].append(number)
        self._counts = sorted({shard.count for shard in shards})

    def find(self, key: bytes) -> tuple[int, int] | None:
        """Which shard has the row of a key, and which of its rows it is; the oldest commit's where several have it."""
        for number in self._candidates(key):
            keys = self.index(number)["key"]
            row = first_row(keys, key)
            if row < len(keys) and keys[row].tobytes() == key:
                return number, row
        return None

    def read(self, rows: Sequence[tuple[int, int]], field: Field, out: NDArray[np.generic]) -> None:
        """Read a tensor column of rows, (shard, row) each, into an array [N, *shape] of its dtype."""
        raw = out.view(np.uint8).reshape(len(out), field.nbytes)
        for target, (number, row) in zip(raw, rows, strict=True):
            self._read_value(number, self.index(number)[row], field, target)

    def index(self, number: int) -> NDArray[Any]:
        """The index of a shard, mapped into memory."""
        return self._indexes(number, self._open_index)

    def _candidates(self, key: bytes) -> list[int]:
        return sorted(n for count in self._counts for n in self._numbers.get((count, find_shard(key, count)), ()))

    def _read_value(self, number: int, entry: Any, field: Field, out: Any) -> None:
        descriptor, (place, size) = self._files(number, self._open_file), value_span(entry, field)
        if field.compression == "none":
            got = os.preadv(descriptor.number, [out], int(place))
        else:
            data = os.pread(descriptor.number, int(size), int(place))
            out[:] = np.frombuffer(decompress(data, field.compression, field.nbytes), np.uint8)
            got = len(data)
        if got != size:
            raise CorruptFileError(
                "the shard ends within a row", location=str(self._root / self._shards[number].data.path)
            )

    def _open_index(self, number: int) -> NDArray[Any]:
        entry = self._shards[number].index
        assert entry is not None
        return read_index(self._check(entry), self._table).view(np.ndarray)

    def _open_file(self, number: int) -> "_Descriptor":
        return _Descriptor(self._check(self._shards[number].data))

    def _check(self, entry: FileEntry) -> Path:
        if entry.path not in self._checked:
            self._checked[entry.path] = check_file(self._root, entry)
        return self._checked[entry.path]


class _Descriptor:
    """A file open for reading, closed when nobody holds it any more, so that no reader loses it midway."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)


class _Kept(Generic[Value]):
    """What was opened last, by number: opened once, whatever the threads that ask, and let go when others need room."""

    def __init__(self) -> None:
        self._values: dict[int, Value] = {}
        self._lock = Lock()

    def __call__(self, number: int, open_it: Callable[[int], Value]) -> Value:
        value = self._values.get(number)
        if value is not None:
            return value
        with self._lock:
            value = self._values.get(number)
            if value is None:
                value = open_it(number)
                while len(self._values) >= _KEPT_OPEN:
                    del self._values[next(iter(self._values))]
                self._values[number] = value
            return value


def first_row(keys: NDArray[np.uint8], key: bytes) -> int:
    """The first row, by binary search, whose key in the ascending keys uint8 [N, 32] is not below `key`."""
    return bisect_left(range(len(keys)), key, key=lambda row: keys[row].tobytes())


def key_bytes(key: bytes | str) -> bytes:
    """A key's 32 bytes, from themselves or from 64 hexadecimal digits; UsageError where it is neither."""
    try:
        data = bytes.fromhex(key) if isinstance(key, str) else bytes(key)
    except ValueError:
        data = b""
    if len(data) != KEY_BYTES:
        raise UsageError(f"{key!r} is no key", hint=f"give {KEY_BYTES} bytes, or {2 * KEY_BYTES} hexadecimal digits")
    return data
