"""Reads the features of several tables as one: the values of each image, concatenated."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.store import CaptionTable, Dataset, FeatureTable
from trainer.data.table_selection import TrainingTables


@dataclass(frozen=True)
class ConcatenatedFeatures:
    """Features of the images that all tables contain. A position is that of an image in the first table."""

    tables: tuple[FeatureTable, ...]

    def lookup(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Returns the positions of content hashes uint8 [N, 32]; −1 for an image that a table does not contain."""
        found = np.stack([table.lookup(keys) for table in self.tables])
        known = (found >= 0).all(axis=0)
        for others, rows in zip(self._rows, found[1:], strict=True):
            others[found[0][known]] = rows[known]
        return np.where(known, found[0], -1)

    def read(self, positions: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns the features float32 [N, values] of positions that `lookup` has returned."""
        parts = [table.read(rows) for table, rows in self._each(positions)]
        return np.concatenate([part.reshape(len(part), -1).astype(np.float32) for part in parts], axis=1)

    def ensure_local(self, positions: NDArray[np.int64]) -> None:
        """Downloads the shards of these positions, if they are in a bucket."""
        for table, rows in self._each(positions):
            table.ensure_local(rows)

    @cached_property
    def _rows(self) -> list[NDArray[np.int64]]:
        """For each other table, the position there of each position in the first table."""
        return [np.full(self.tables[0].rows, -1, np.int64) for _ in self.tables[1:]]

    def _each(self, positions: NDArray[np.int64]) -> Iterator[tuple[FeatureTable, NDArray[np.int64]]]:
        yield self.tables[0], positions
        for table, rows in zip(self.tables[1:], self._rows, strict=True):
            yield table, rows[positions]


@dataclass(frozen=True)
class ConcatenatedTables(TrainingTables):
    """The tables of runs with several feature tables."""

    features: Any  # ConcatenatedFeatures, read as a FeatureTable

    def __iter__(self) -> Iterator[Dataset | CaptionTable | FeatureTable]:
        return iter((*self.datasets, *self.caption_tables, *self.features.tables))
