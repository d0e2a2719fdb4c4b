"""Merges the rows of a feature table's shards into one sequence by key, one key range at a time.

A key range is a key prefix, like a shard. So a range of one commit's shards contains whole ranges of another commit.
"""

from bisect import bisect_left
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
        keys = as_bytes(self.keys).tobytes()
        for number, (shard, row) in enumerate(zip(self.shards.tolist(), self.rows.tolist(), strict=True)):
            yield keys[number * KEY_BYTES : (number + 1) * KEY_BYTES], shard, row


class ShardMerge:
    """The rows of a table's shards by key. If several shards contain a key, the row of the first shard is used."""

    def __init__(self, root: Path, shards: Sequence[Shard], table: Table) -> None:
        self._table = table
        self._check = cache(lambda entry: check_file(root, entry))
        self.shards = shards
        self.ranges, rows = 1, sum(shard.rows for shard in shards)
        while self.ranges < _MAX_RANGES and rows > self.ranges * _RANGE_ROWS:
            self.ranges *= 2

    def range(self, number: int) -> MergedRows:
        """Returns the rows of the key range `number` of `ranges`."""
        empty = MergedRows(np.zeros(0, f"S{KEY_BYTES}"), np.zeros(0, np.int64), np.zeros(0, np.int64))
        parts = [empty, *(self._part(shard, number) for shard in self._overlapping(number))]
        keys = np.concatenate([part.keys for part in parts])
        ordered, first = np.unique(keys, return_index=True)
        shards = np.concatenate([part.shards for part in parts])[first]
        rows = np.concatenate([part.rows for part in parts])[first]
        return MergedRows(ordered, shards, rows, len(keys) - len(ordered))

    def _overlapping(self, number: int) -> Iterator[int]:
        """Iterates over the positions of the shards that may contain keys of a range."""
        for position, shard in enumerate(self.shards):
            # The wider of the two, a shard or a range, contains the other one completely.
            count = min(shard.count, self.ranges)
            if shard.number * count // shard.count == number * count // self.ranges:
                yield position

    def _part(self, shard: int, number: int) -> MergedRows:
        """Returns the rows of a shard in a key range."""
        entry = self.shards[shard].index
        assert entry is not None
        keys = read_index(self._check(entry), self._table)["key"]
        start, end = (
            bisect_left(keys, bound, key=lambda key: find_shard(key.tobytes(), self.ranges))
            for bound in (number, number + 1)
        )
        return MergedRows(as_keys(keys[start:end]), np.full(end - start, shard, np.int64), np.arange(start, end))


class ReferencedKeys:
    """The content hashes in catalogs, which are Parquet files, by key range, in files of a directory."""

    def __init__(self, directory: Path, ranges: int, catalogs: Iterable[Path]) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        for catalog in catalogs:
            with pq.ParquetFile(catalog) as file:
                for batch in file.iter_batches(_BATCH, columns=["key"]):
                    keys = key_column(batch.column(0))
                    numbers = find_shards(keys, ranges)
                    for number in np.unique(numbers):
                        with (directory / str(number)).open("ab") as of_range:
                            of_range.write(keys[numbers == number].tobytes())

    def range(self, number: int) -> Keys:
        """Returns the keys of one range in ascending order, each once."""
        path = self._directory / str(number)
        data = path.read_bytes() if path.exists() else b""
        return np.unique(as_keys(np.frombuffer(data, np.uint8).reshape(-1, KEY_BYTES)))


def as_keys(keys: NDArray[np.uint8]) -> Keys:
    """Returns keys uint8 [N, 32] as strings of 32 bytes [N], which can be sorted and compared."""
    return np.ascontiguousarray(keys).view(f"S{KEY_BYTES}").reshape(-1)


def as_bytes(keys: Keys) -> NDArray[np.uint8]:
    """Returns keys as uint8 [N, 32], which keep trailing zeros; NumPy's strings lose them."""
    return np.ascontiguousarray(keys).view(np.uint8).reshape(-1, KEY_BYTES)


def find_keys(ordered: Keys, keys: Keys) -> NDArray[np.int64]:
    """Returns the position of each key among the sorted ones, int64 [N]; −1 if it is missing."""
    if not len(ordered):
        return np.full(len(keys), -1, np.int64)
    nearest = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
    return np.where(ordered[nearest] == keys, nearest, -1)


def key_column(column: Any) -> NDArray[np.uint8]:
    """Returns an Arrow column of keys as uint8 [N, 32], without a copy."""
    values = np.frombuffer(column.buffers()[1], np.uint8).reshape(-1, KEY_BYTES)
    return values[column.offset : column.offset + len(column)]
