"""Gives the rows of tables by number: map-style datasets for PyTorch, and random access data sources for Grain.

Both libraries use `len(source)` and `source[number]`; PyTorch's DataLoader also `__getitems__`. Neither is imported,
nor is TensorFlow. Sources can be sent to worker processes, where they open the files of the table again.
"""

import os
from collections.abc import Iterator, Sequence
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.store.merge import Keys, as_bytes
from schemas.tables import Table

Opened = TypeVar("Opened")


class TensorTable(Protocol):
    """A feature table."""

    root: Path

    @property
    def rows(self) -> int:
        """Number of rows."""

    @property
    def positions_by_key(self) -> tuple[Keys, NDArray[np.int64]]:
        """The distinct keys in ascending order, and the position of each."""

    def read(self, positions: NDArray[np.int64]) -> NDArray[np.generic]:
        """Reads the rows at positions: [N, *shape]."""


class RowTable(Protocol):
    """A table without tensors."""

    root: Path

    def record_batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        """Iterates over the rows."""


class OpenedPerProcess(Generic[Opened]):
    """A table that each process opens for itself.

    A forked process must not use the locks of its parent, which a thread of the parent may have held.
    """

    def __init__(self, table: Opened) -> None:
        self._table = table
        self._process = os.getpid()

    def get(self) -> Opened:
        """Returns the table, as this process opened it."""
        if self._process != os.getpid():
            self._table, self._process = copy(self._table), os.getpid()
        return self._table


class FeatureSource:
    """The rows of a feature table by number, in ascending order of their content hashes.

    `source[number]` is `{"key": bytes, "value": array [*shape]}`. The values have the storage dtype; int8 becomes
    float32.
    """

    def __init__(self, table: TensorTable) -> None:
        self._opened = OpenedPerProcess(table)
        self._rows = table.rows
        self._description = f"{table.root}, {self._rows} rows"

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Returns several rows. PyTorch's DataLoader calls it with the numbers of a batch."""
        table = self._opened.get()
        keys, positions = table.positions_by_key
        chosen = np.array([range(self._rows)[number] for number in numbers], np.int64)
        values = table.read(positions[chosen])
        return [
            {"key": key.tobytes(), "value": value} for key, value in zip(as_bytes(keys[chosen]), values, strict=True)
        ]

    def __repr__(self) -> str:
        return f"FeatureSource({self._description})"


class RowSource:
    """The rows of a caption table by key, or of a dataset catalog by image ID, by number.

    `source[number]` is a dict by column; token IDs are an int64 array. Each process reads all rows into memory.
    """

    def __init__(self, table: RowTable, schema: Table) -> None:
        self._table, self._schema = table, schema

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Returns several rows. PyTorch's DataLoader calls it with the numbers of a batch."""
        chosen = [range(len(self._rows))[number] for number in numbers]
        arrays = {field.name for field in self._schema.fields if field.kind == "ints"}
        rows = self._rows.take(pa.array(chosen, pa.int64())).to_pylist()
        return [
            {name: np.array(value, np.int64) if name in arrays else value for name, value in row.items()}
            for row in rows
        ]

    def __repr__(self) -> str:
        return f"RowSource({self._table.root}, {len(self)} rows)"

    def __getstate__(self) -> dict[str, Any]:
        return {"_table": self._table, "_schema": self._schema}

    @cached_property
    def _rows(self) -> pa.Table:
        batches = self._table.record_batches(1 << 16)
        return pa.Table.from_batches(batches, schema=self._schema.arrow_schema())
