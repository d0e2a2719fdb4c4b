"""Reads a dataset of a store: its dataset catalog (one row per image), labels and splits."""

from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from features.store.data_sources import RowSource
from features.store.snapshot import TableSnapshot
from features.store.streaming import read_parquet, row_batches, row_dataset
from schemas.errors import MissingKeyError
from schemas.manifests import DatasetMetadata, InputSize, LabelFormat, Manifest
from schemas.table_config import compute_digest
from schemas.tables import ASSIGNED_SPLITS, CATALOG, LABELS


class Dataset(TableSnapshot[DatasetMetadata]):
    """The catalog, labels and splits of a dataset, as its latest commit defines them."""

    @property
    def name(self) -> str:
        """The dataset's name in the store."""
        return self.root.name

    @property
    def manifest(self) -> Manifest:
        """The manifest of the latest commit."""
        return self.manifests[-1]

    @property
    def digest(self) -> str:
        """SHA-256 of the dataset's images and labels. It ignores the splits of absent images."""
        files = self.manifest.files
        return compute_digest({role: files[role].sha256 for role in (CATALOG.name, LABELS.name) if role in files})

    @property
    def label_format(self) -> LabelFormat | None:
        """The format of the label file; None without one, and for a space and a line feed."""
        return self.facts.label_format

    @property
    def input_size(self) -> InputSize | None:
        """The size of the stored images when the dataset was prepared first; None without a commit or a size."""
        return self.facts.input_size if self.manifests else None

    @property
    def fold_case(self) -> bool:
        """Whether case is folded in the labels."""
        return self.facts.fold_case

    @property
    def has_images(self) -> bool:
        """Whether the dataset has a catalog. Before `prepare features` it may have captions and splits only."""
        return bool(self.manifests) and CATALOG.name in self.manifest.files

    def catalog(self) -> pa.Table:
        """Returns the rows of `schemas.tables.CATALOG` by image ID; no rows before the features are prepared.

        `record_batches` needs less memory.
        """
        return read_parquet(self._paths(CATALOG), CATALOG)

    def labels(self) -> pa.Table:
        """Returns the rows of `schemas.tables.LABELS` by image ID; no rows if the dataset has no labels."""
        return read_parquet(self._paths(LABELS), LABELS)

    def label_batches(self, rows: int = 4096) -> Iterator[pa.RecordBatch]:
        """Iterates over the rows of `labels`, `rows` per batch and fewer in the last."""
        return row_batches(self._paths(LABELS), LABELS, "parquet", rows)

    def record_batches(self, rows: int = 4096) -> Iterator[pa.RecordBatch]:
        """Iterates over the rows of `catalog`, `rows` per batch and fewer in the last."""
        return row_batches(self._paths(CATALOG), CATALOG, "parquet", rows)

    def absent_splits(self, rows: int = 4096) -> Iterator[pa.RecordBatch]:
        """Iterates over the rows of `schemas.tables.ASSIGNED_SPLITS`: splits of images that the catalog lacks."""
        return row_batches(self._paths(ASSIGNED_SPLITS), ASSIGNED_SPLITS, "parquet", rows)

    def dataset(self, batch_size: int = 1024, prefetch: int = 2) -> Any:
        """Returns the rows of `catalog` as a tf.data.Dataset of dicts by column: tf.string [N], `bytes` tf.int64."""
        return row_dataset(lambda: self.record_batches(batch_size), CATALOG, prefetch)

    def data_source(self) -> RowSource:
        """Returns the rows of `catalog` as a map-style dataset for PyTorch and a data source for Grain."""
        return RowSource(self, CATALOG)

    def get(self, image_id: str) -> dict[str, Any]:
        """Returns the row of one image as a dict by column; its `key` is what `FeatureTable.get` accepts.

        Raises:
            MissingKeyError: The dataset does not contain the image.
        """
        filters = [("image_id", "==", image_id)]
        read = partial(pq.read_table, schema=CATALOG.arrow_schema(), partitioning=None, filters=filters)
        found = [row for path in self._paths(CATALOG) for row in read(path).to_pylist()]
        if not found:
            raise MissingKeyError(f"the dataset {self.name} has no image {image_id!r}", location=str(self.root))
        return cast(dict[str, Any], found[0])
