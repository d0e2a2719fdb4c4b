"""Defines where a job takes features from: a stored extractor, or arrays that a user computed elsewhere."""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from features.extractors.devices import may_have_accelerator
from features.extractors.runtimes import RuntimeChoice
from features.images.decode import ImageLimits
from pipelines.beam.work_plans import Worker
from pipelines.ingest.array_index import ArrayIndex
from pipelines.ingest.image_database import ImageDatabase
from pipelines.jobs.estimate import TIMED_IMAGES, measure_speed
from pipelines.jobs.extract_shard import EXTRACT_UNIT_SCHEMA, ExtractShard
from pipelines.jobs.frozen_extractor import FrozenExtractor
from pipelines.jobs.import_shard import IMPORT_PROVENANCE, IMPORT_UNIT_SCHEMA, ImportShard, import_rows
from pipelines.jobs.provenance import Provenance, local_provenance
from schemas.choices import ExtractorFormat
from schemas.table_config import IMPORTED, FeatureTableConfig


class FeatureSource(Protocol):
    """The source of the features of a job."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image's features."""

    @property
    def network(self) -> str | None:
        """SHA-256 of the stored extractor; None for imported features."""

    @property
    def network_format(self) -> ExtractorFormat:
        """Format of the stored extractor."""

    @property
    def name(self) -> str:
        """The part of a commit's name that identifies the source."""

    @property
    def unit_schema(self) -> pa.Schema:
        """The columns of a work unit."""

    def list_planned(self, database: ImageDatabase) -> Iterator[dict[str, Any]]:
        """Yields the rows of the work units, by content hash."""

    def make_worker(self, root: Path, table_config: FeatureTableConfig, commit: str, count: int) -> Worker:
        """Returns the worker that computes one shard of the table in `root`, out of `count`."""

    def local_provenance(self, table_config: FeatureTableConfig) -> Provenance:
        """Returns the provenance of rows that this machine adds."""

    def may_add(self, numerics: str) -> bool:
        """Returns whether some machine may add rows of a numerics class."""

    def measure_speed(self, table_config: FeatureTableConfig, rows: Iterable[dict[str, Any]]) -> float | None:
        """Measures the number of rows per second of one process, with the first of `rows`, at least one.

        None if this machine does not have the device that computes them.
        """

    def check_unchanged(self) -> None:
        """Raises CaptError if the input has changed since it was listed, as far as the rows do not show it."""


@dataclass(frozen=True)
class ExtractorSource:
    """Extracts features from images with a stored extractor."""

    extractor: FrozenExtractor
    batch_size: int
    limits: ImageLimits
    runtime: RuntimeChoice

    unit_schema = EXTRACT_UNIT_SCHEMA

    @property
    def shape(self) -> tuple[int, ...]:
        return self.extractor.shape

    @property
    def network(self) -> str:
        return self.extractor.sha256

    @property
    def network_format(self) -> ExtractorFormat:
        return self.extractor.format

    @property
    def name(self) -> str:
        return self.extractor.sha256

    def list_planned(self, database: ImageDatabase) -> Iterator[dict[str, Any]]:
        return database.list_planned()

    def make_worker(self, root: Path, table_config: FeatureTableConfig, commit: str, count: int) -> Worker:
        path = str(self.extractor.path)
        return ExtractShard(
            str(root), path, table_config, self.shape, commit, count, self.batch_size, self.limits, self.runtime
        )

    def local_provenance(self, table_config: FeatureTableConfig) -> Provenance:
        return local_provenance(table_config, self.runtime)

    def may_add(self, numerics: str) -> bool:
        return self.runtime.may_compute(numerics)

    def measure_speed(self, table_config: FeatureTableConfig, rows: Iterable[dict[str, Any]]) -> float | None:
        if self.runtime.device == "gpu" and not may_have_accelerator():
            return None
        return measure_speed(table_config, self.extractor, self.batch_size, self.limits, self.runtime, rows)

    def check_unchanged(self) -> None:
        """Does nothing: extraction compares the bytes of each image with its content hash."""


@dataclass(frozen=True)
class ArraySource:
    """Imports the arrays of an index, which must exist as long as the source is used."""

    index: ArrayIndex

    network = None
    network_format: ExtractorFormat = "pb"
    name = IMPORTED
    unit_schema = IMPORT_UNIT_SCHEMA

    @property
    def shape(self) -> tuple[int, ...]:
        return self.index.shape

    def list_planned(self, database: ImageDatabase) -> Iterator[dict[str, Any]]:
        return database.list_planned_arrays()

    def make_worker(self, root: Path, table_config: FeatureTableConfig, commit: str, count: int) -> Worker:
        return ImportShard(str(root), table_config, self.shape, commit, count, self.index.whole is not None)

    def local_provenance(self, table_config: FeatureTableConfig) -> Provenance:
        return IMPORT_PROVENANCE

    def may_add(self, numerics: str) -> bool:
        return numerics == IMPORT_PROVENANCE.numerics

    def measure_speed(self, table_config: FeatureTableConfig, rows: Iterable[dict[str, Any]]) -> float:
        some = list(islice(rows, TIMED_IMAGES))
        started = time.perf_counter()
        deque(import_rows(some, table_config, self.shape, self.index.whole is not None), maxlen=0)
        return len(some) / (time.perf_counter() - started)

    def check_unchanged(self) -> None:
        self.index.check_unchanged()
