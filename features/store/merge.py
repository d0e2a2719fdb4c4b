"""Merges the rows of a feature table's shards into one sequence by key, one key range at a time.

A key range is a key prefix, like a shard. So a range of one commit's shards contains whole ranges of another commit.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.store.corruption import check_file
from features.store.shards import find_shard, find_shards, read_index
from schemas.manifests import Shard
from schemas.tables import KEY_BYTES, Table

_RANGE_ROWS = 1 << 18
_MAX_RANGES = 1 << 12
_BATCH = 1 << 16

Keys = NDArray[np.bytes_]


@dataclass(frozen=True)
class MergedRows:
    """Rows of a table by key, each key once.

    Args:
        keys: 32-byte strings [N], ascending.
        shards: int64 array [N]. The shard that contains each row, by its position in the list of shards.
        rows: int64 array [N]. The position of each row in its shard.
        repeated: Number of further rows that have one of these keys.
    """

    keys: Keys
    shards: NDArray[np.int64]
    rows: NDArray[np.int64]
    repeated: int = 0

    def select(self, mask: NDArray[np.bool_]) -> "MergedRows":
        """Returns the rows that a mask bool [N] selects."""
        return MergedRows(self.keys[mask], self.shards[mask], self.rows[mask], self.repeated)

    def __iter__(self) -> Iterator[tuple[bytes, int, int]]:
        """Iterates over the key, shard and row of each row."""
        keys = as_bytes(self.keys).tobytes()
        for number, (shard, row) in enumerate(zip(self.shards.tolist(), self.rows.tolist(), strict=True)):
            yield keys[number * KEY_BYTES : (number + 1) * KEY_BYTES], shard, row


class ShardMerge:
    """The rows of a table's shards by key. If several shards contain a key, the row of the first shard is used.

    Args:
        root: The table's directory.
        shards: The shards, oldest commit first.
        table: The declaration of the rows.
    """

    def __init__(self, root: Path, shards: Sequence[Shard], table: Table) -> None:
        self._table = table
        self._check = cache(lambda entry: check_file(root, entry))
        self.shards = shards
        self.ranges = _count_ranges(sum(shard.rows for shard in shards))

    def range(self, number: int) -> MergedRows:
        """Returns the rows of the key range `number` of `ranges`."""
        parts = [part for part in (self._part(shard, number) for shard in range(len(self.shards))) if part]
        if not parts:
            return MergedRows(np.zeros(0, f"S{KEY_BYTES}"), np.zeros(0, np.int64), np.zeros(0, np.int64))
        keys = np.concatenate([part.keys for part in parts])
        ordered, first = np.unique(keys, return_index=True)
        shards = np.concatenate([part.shards for part in parts])[first]
        rows = np.concatenate([part.rows for part in parts])[first]
        return MergedRows(ordered, shards, rows, len(keys) - len(ordered))

    def index(self, number: int) -> NDArray[Any]:
        """Returns the index of one of `shards`, after its checksum was verified."""
        entry = self.shards[number].index
        assert entry is not None
        return read_index(self._check(entry), self._table)

    def data(self, number: int) -> Path:
        """Returns the data file of one of `shards`, after its checksum was verified."""
        return self._check(self.shards[number].data)

    def _part(self, shard: int, number: int) -> MergedRows | None:
        if not _overlaps(self.shards[shard], number, self.ranges):
            return None
        keys = self.index(shard)["key"]
        start, end = (_first_row(keys, bound, self.ranges) for bound in (number, number + 1))
        if start == end:
            return None
        return MergedRows(as_keys(keys[start:end]), np.full(end - start, shard, np.int64), np.arange(start, end))


class ReferencedKeys:
    """The content hashes that catalogs contain, by key range, in files of a directory.

    Args:
        directory: Directory for the files.
        ranges: Number of key ranges.
        catalogs: Catalogs, as Parquet files.
    """

    def __init__(self, directory: Path, ranges: int, catalogs: Iterable[Path]) -> None:
        self._directory = directory
        self._ranges = ranges
        directory.mkdir(parents=True, exist_ok=True)
        for catalog in catalogs:
            with pq.ParquetFile(catalog) as file:
                for batch in file.iter_batches(_BATCH, columns=["key"]):
                    self._add(key_column(batch.column(0)))

    def range(self, number: int) -> Keys:
        """Returns the keys of one range in ascending order, each once."""
        path = self._directory / str(number)
        data = path.read_bytes() if path.exists() else b""
        return np.unique(as_keys(np.frombuffer(data, np.uint8).reshape(-1, KEY_BYTES)))

    def _add(self, keys: NDArray[np.uint8]) -> None:
        numbers = find_shards(keys, self._ranges)
        for number in np.unique(numbers):
            with (self._directory / str(number)).open("ab") as file:
                file.write(keys[numbers == number].tobytes())


def as_keys(keys: NDArray[np.uint8]) -> Keys:
    """Returns keys uint8 [N, 32] as strings of 32 bytes [N], which can be sorted and compared."""
    return np.ascontiguousarray(keys).view(f"S{KEY_BYTES}").reshape(-1)


def as_bytes(keys: Keys) -> NDArray[np.uint8]:
    """Returns keys as uint8 [N, 32], which keep trailing zeros; NumPy's strings lose them."""
    return np.ascontiguousarray(keys).view(np.uint8).reshape(-1, KEY_BYTES)


def contains(ordered: Keys, keys: Keys) -> NDArray[np.bool_]:
    """Returns which of the keys are among the sorted ones, bool [N]."""
    if not len(ordered):
        return np.zeros(len(keys), np.bool_)
    nearest = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
    return np.asarray(ordered[nearest] == keys, np.bool_)


def key_column(column: Any) -> NDArray[np.uint8]:
    """Returns an Arrow column of keys as uint8 [N, 32], without a copy."""
    values = np.frombuffer(column.buffers()[1], np.uint8).reshape(-1, KEY_BYTES)
    return values[column.offset : column.offset + len(column)]


def _count_ranges(rows: int) -> int:
    """Returns the number of key ranges, a power of two, for a number of rows."""
    count = 1
    while count < _MAX_RANGES and rows > count * _RANGE_ROWS:
        count *= 2
    return count


def _overlaps(shard: Shard, number: int, ranges: int) -> bool:
    if shard.count >= ranges:
        return shard.number * ranges // shard.count == number
    return number * shard.count // ranges == shard.number


def _first_row(keys: NDArray[np.uint8], number: int, ranges: int) -> int:
    """Returns the first row of a key range by binary search."""
    low, high = 0, len(keys)
    while low < high:
        middle = (low + high) // 2
        if find_shard(keys[middle].tobytes(), ranges) < number:
            low = middle + 1
        else:
            high = middle
    return low
