"""The extraction job's step: one unit of references becomes one shard."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from features.extractors.extraction import DEFAULT_BATCH_SIZE, EncodedImage, ExtractedRow, ExtractionCore, FailedImage
from features.extractors.frozen_graph import load_shared_frozen_graph
from features.images.decode import raise_pixel_limit
from features.io.atomic_files import ensure_local
from features.io.locations import parse_location
from features.references import Reference
from features.references.image_limits import ImageLimits
from features.runtime.numerics import detect_toolchain
from features.store.shards import ShardWriter
from pipelines.beam.work_units import Advance, read_unit
from pipelines.ingest.job_database import CHANGED
from pipelines.jobs.provenance import Provenance
from schemas.errors import RecordError
from schemas.frozen import Frozen
from schemas.manifests import Shard
from schemas.table_config import FeatureTableConfig
from schemas.tables import KEY_BYTES

EXTRACT_UNIT_SCHEMA = pa.schema([("key", pa.binary(KEY_BYTES)), ("location", pa.string()), ("member", pa.string())])


class FailedRow(Frozen):
    """An image that has no features, and why."""

    key: str
    stage: str
    reason: str
    detail: str
    permanent: bool


class UnitResult(Frozen):
    """What became of a unit.

    Args:
        shard: Its shard; None if every image failed.
        failures: Its failures.
        provenance: What computed it, as the worker itself found.
    """

    shard: Shard | None
    failures: tuple[FailedRow, ...]
    provenance: Provenance


@dataclass(frozen=True)
class ExtractShard:
    """Extracts the images of one unit into one shard.

    Args:
        root: str. The feature table's directory.
        network: str. The frozen network's file, named by its SHA-256.
        table_config: FeatureTableConfig. What a row means.
        shape: tuple of int. Shape of one row's value.
        commit: str. The directory within the table that the shard goes to.
        count: int. How many shards the commit's key ranges divide into.
        batch_size: int. Images a call of the network at most.
        limits: Limits. What one image may measure.
    """

    root: str
    network: str
    table_config: FeatureTableConfig
    shape: tuple[int, ...]
    commit: str
    count: int
    batch_size: int = DEFAULT_BATCH_SIZE
    limits: ImageLimits = field(default_factory=ImageLimits)

    def __call__(self, unit: Path, advance: Advance) -> bytes:
        """The result of the unit named by its shard's number."""
        kept = parse_location(self.network)
        network = load_shared_frozen_graph(ensure_local(kept, kept.stem), self.table_config.precision)
        raise_pixel_limit(self.limits.pixels)
        extractor = ExtractionCore(
            self.table_config, network, batch_size=self.batch_size, max_pixels=self.limits.pixels
        )
        writer = self._writer(int(unit.stem))
        failures = []
        try:
            for result in extractor.run(open_images(read_unit(unit), self.limits.bytes)):
                if isinstance(result, ExtractedRow):
                    writer.append({"key": result.key, **result.values})
                else:
                    failures.append(_failure(result.key, result.error))
                advance(1, isinstance(result, FailedImage))
            shard = writer.close()
        finally:
            writer.abandon()
        provenance = Provenance(numerics=network.numerics, toolchain=detect_toolchain())
        return UnitResult(shard=shard, failures=tuple(failures), provenance=provenance).model_dump_json().encode()

    def _writer(self, number: int) -> ShardWriter:
        table = self.table_config.table(self.shape)
        return ShardWriter(parse_location(self.root), self.commit, table, self.table_config.format, number, self.count)


def open_images(rows: Iterable[dict[str, Any]], max_bytes: int) -> Iterator[EncodedImage]:
    """The rows of a unit as encoded images, each of which must have the content that its key tells."""
    for row in rows:
        yield EncodedImage(row["key"], _Unchanged(row["key"], Reference(row["location"], row["member"]), max_bytes))


@dataclass(frozen=True)
class _Unchanged:
    key: bytes
    reference: Reference
    max_bytes: int

    def __call__(self) -> bytes:
        data = self.reference.read(self.max_bytes)
        if hashlib.sha256(data).digest() != self.key:
            raise RecordError("read", CHANGED, f"{self.reference.label} changed during the run", permanent=False)
        return data


def _failure(key: bytes, error: RecordError) -> FailedRow:
    return FailedRow(
        key=key.hex(), stage=error.stage, reason=error.reason, detail=error.detail, permanent=error.permanent
    )
