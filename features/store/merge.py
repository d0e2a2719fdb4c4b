"""Merging: the rows of a feature table's commits as one sequence by key, range by range, in bounded memory.

A key range is a key prefix, as a shard is, so that a range of one commit's shards meets whole ranges of another's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.store.shards import find_shard, read_index
from schemas.manifests import FileEntry, Shard
from schemas.tables import KEY_BYTES

if TYPE_CHECKING:
    from features.store import FeatureTable, Store

_RANGE_ROWS = 1 << 18
_MAX_RANGES = 1 << 12
_BATCH = 1 << 16

Keys = NDArray[np.bytes_]


@dataclass(frozen=True)
class Rows:
    """Rows of a table by key, each key once.

    Args:
        keys: array of 32-byte strings [N], ascending.
        shards: int64 array [N]. Which of the table's shards has the row.
        places: int64 array [N]. Which of the shard's rows it is.
        repeated: int. Further rows that have one of these keys.
    """

    keys: Keys
    shards: NDArray[np.int64]
    places: NDArray[np.int64]
    repeated: int = 0

    def select(self, mask: NDArray[np.bool_]) -> "Rows":
        """The rows that a mask bool [N] picks."""
        return Rows(self.keys[mask], self.shards[mask], self.places[mask], self.repeated)


class Merge:
    """The rows of a table's snapshot by key; of rows with one key the oldest commit's.

    Args:
        table: FeatureTable. An open table.
    """

    def __init__(self, table: "FeatureTable") -> None:
        self._table = table
        self._checked: dict[str, Path] = {}
        self.shards = table.shards
        self.ranges = range_count(sum(shard.rows for shard in self.shards))

    def range(self, number: int) -> Rows:
        """The rows of the key range `number` of `ranges`."""
        parts = [part for part in (self._part(shard, number) for shard in range(len(self.shards))) if part]
        if not parts:
            return Rows(np.zeros(0, f"S{KEY_BYTES}"), np.zeros(0, np.int64), np.zeros(0, np.int64))
        keys = np.concatenate([part.keys for part in parts])
        ordered, first = np.unique(keys, return_index=True)
        shards = np.concatenate([part.shards for part in parts])[first]
        places = np.concatenate([part.places for part in parts])[first]
        return Rows(ordered, shards, places, len(keys) - len(ordered))

    def index(self, number: int) -> NDArray[Any]:
        """The index of one of `shards`, its checksum checked the first time."""
        entry = self.shards[number].index
        assert entry is not None
        return read_index(self._file(entry), self._table.table)

    def data(self, number: int) -> Path:
        """The data file of one of `shards`, its checksum checked the first time."""
        return self._file(self.shards[number].data)

    def _file(self, entry: FileEntry) -> Path:
        if entry.path not in self._checked:
            self._checked[entry.path] = self._table.file(entry)
        return self._checked[entry.path]

    def _part(self, shard: int, number: int) -> Rows | None:
        if not _meet(self.shards[shard], number, self.ranges):
            return None
        keys = self.index(shard)["key"]
        start, end = _bounds(keys, number, self.ranges)
        if start == end:
            return None
        return Rows(as_keys(keys[start:end]), np.full(end - start, shard, np.int64), np.arange(start, end))


class LabelledKeys:
    """The content keys that a store's datasets name, by key range, in files of a directory.

    Args:
        directory: Path. Gets the files.
        ranges: int. How many key ranges there are.
    """

    def __init__(self, directory: Path, ranges: int) -> None:
        self._directory = directory
        self._ranges = ranges

    def gather(self, store: "Store") -> None:
        """Take the keys of every live dataset."""
        self._directory.mkdir(parents=True, exist_ok=True)
        for dataset in store.datasets():
            with pq.ParquetFile(dataset.file(dataset.manifest.files["catalog"])) as file:
                for batch in file.iter_batches(_BATCH, columns=["key"]):
                    self._add(key_column(batch.column(0)))

    def range(self, number: int) -> Keys:
        """The keys of one range, ascending, each once."""
        path = self._directory / str(number)
        data = path.read_bytes() if path.exists() else b""
        return np.unique(as_keys(np.frombuffer(data, np.uint8).reshape(-1, KEY_BYTES)))

    def _add(self, keys: NDArray[np.uint8]) -> None:
        numbers = shard_numbers(keys, self._ranges)
        for number in np.unique(numbers):
            with (self._directory / str(number)).open("ab") as file:
                file.write(keys[numbers == number].tobytes())


def range_count(rows: int) -> int:
    """How many key ranges so many rows are handled in: a power of two."""
    count = 1
    while count < _MAX_RANGES and rows > count * _RANGE_ROWS:
        count *= 2
    return count


def shard_numbers(keys: NDArray[np.uint8], count: int) -> NDArray[np.int64]:
    """The shard, of `count`, that each of the keys uint8 [N, 32] belongs to."""
    heads = np.ascontiguousarray(keys[:, :4]).view(">u4").reshape(-1).astype(np.int64)
    return heads * count >> 32


def as_keys(keys: NDArray[np.uint8]) -> Keys:
    """Keys uint8 [N, 32] as strings of 32 bytes [N], which sort and compare."""
    return np.ascontiguousarray(keys).view(f"S{KEY_BYTES}").reshape(-1)


def as_bytes(keys: Keys) -> NDArray[np.uint8]:
    """Keys as uint8 [N, 32]: unlike the strings' items, these keep zeros at the end."""
    return np.ascontiguousarray(keys).view(np.uint8).reshape(-1, KEY_BYTES)


def contains(ordered: Keys, keys: Keys) -> NDArray[np.bool_]:
    """Which of the keys are among the ordered ones, bool [N]."""
    if not len(ordered):
        return np.zeros(len(keys), np.bool_)
    place = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
    return np.asarray(ordered[place] == keys, np.bool_)


def iterate(rows: Rows) -> Iterator[tuple[bytes, int, int]]:
    """Key, shard and place of each row, in order."""
    keys = as_bytes(rows.keys).tobytes()
    for number, (shard, place) in enumerate(zip(rows.shards.tolist(), rows.places.tolist(), strict=True)):
        yield keys[number * KEY_BYTES : (number + 1) * KEY_BYTES], shard, place


def _meet(shard: Shard, number: int, ranges: int) -> bool:
    if shard.count >= ranges:
        return shard.number * ranges // shard.count == number
    return number * shard.count // ranges == shard.number


def _bounds(keys: NDArray[np.uint8], number: int, ranges: int) -> tuple[int, int]:
    return _first_of(keys, number, ranges), _first_of(keys, number + 1, ranges)


def _first_of(keys: NDArray[np.uint8], number: int, ranges: int) -> int:
    low, high = 0, len(keys)
    while low < high:
        middle = (low + high) // 2
        if find_shard(keys[middle].tobytes(), ranges) < number:
            low = middle + 1
        else:
            high = middle
    return low


def key_column(column: Any) -> NDArray[np.uint8]:
    values = np.frombuffer(column.buffers()[1], np.uint8).reshape(-1, KEY_BYTES)
    return values[column.offset : column.offset + len(column)]
