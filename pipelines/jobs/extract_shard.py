"""Extracts one work unit of image references into one shard."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from features.extractors.extraction import EncodedImage, ExtractedRow, ExtractionCore, FailedImage
from features.extractors.runtimes import TENSORFLOW_CPU, RuntimeChoice, load_shared_extractor
from features.images.decode import ImageLimits, raise_pixel_limit
from features.inputs import FileReference
from features.io.atomic_files import ensure_local
from features.io.locations import parse_location
from features.runtime.keras_backend import select_backend
from features.runtime.numerics import detect_toolchain
from features.store.shards import ShardWriter
from pipelines.beam.work_plans import Advance, read_unit
from pipelines.ingest.image_database import CHANGED
from pipelines.jobs.provenance import Provenance
from schemas.defaults import BATCH_SIZE
from schemas.errors import RecordError
from schemas.frozen import Frozen
from schemas.manifests import Shard
from schemas.table_config import FeatureTableConfig
from schemas.tables import KEY_BYTES

EXTRACT_UNIT_SCHEMA = pa.schema([("key", pa.binary(KEY_BYTES)), ("location", pa.string()), ("member", pa.string())])


class FailedRow(Frozen):
    """An image without features, by content hash, and the reason."""

    key: str
    stage: str
    reason: str
    detail: str
    permanent: bool


class ExtractedUnit(Frozen):
    """The result of a unit. `shard` is None if every image failed. `provenance` is that of the worker."""

    shard: Shard | None
    failures: tuple[FailedRow, ...]
    provenance: Provenance

    @property
    def images(self) -> int:
        return (self.shard.rows if self.shard else 0) + len(self.failures)


@dataclass(frozen=True)
class ExtractShard:
    """Extracts the images of one unit into one shard. The result is an `ExtractedUnit` in JSON.

    `extractor` is the file of the stored extractor, named by its SHA-256; `shape` that of one row's value; `commit`
    the directory of the shard in the table, which has `count` shards. The process that computes detects its device.
    """

    root: str
    extractor: str
    table_config: FeatureTableConfig
    shape: tuple[int, ...]
    commit: str
    count: int
    batch_size: int = BATCH_SIZE
    limits: ImageLimits = field(default_factory=ImageLimits)
    runtime: RuntimeChoice = TENSORFLOW_CPU

    def __call__(self, unit: Path, advance: Advance) -> bytes:
        """Returns the result of a unit, whose name is the number of its shard."""
        extractor = parse_location(self.extractor)
        select_backend(self.runtime.backend)
        path = ensure_local(extractor, extractor.stem)
        model = load_shared_extractor(path, self.table_config, self.runtime.device, self.batch_size)
        raise_pixel_limit(self.limits.pixels)
        core = ExtractionCore.for_extractor(self.table_config, model, self.batch_size, self.limits.pixels)
        writer = open_writer(self.root, self.commit, self.table_config, self.shape, unit, self.count)
        rows = core.run(open_images(read_unit(unit), self.limits.bytes))
        shard, failures = write_rows(writer, rows, advance)
        provenance = Provenance(numerics=model.numerics, toolchain=detect_toolchain())
        extracted = ExtractedUnit(shard=shard, failures=failures, provenance=provenance)
        return extracted.model_dump_json().encode()


def open_writer(
    root: str, commit: str, table_config: FeatureTableConfig, shape: tuple[int, ...], unit: Path, count: int
) -> ShardWriter:
    """Returns the writer of a unit's shard. The unit's name is the number of the shard, out of `count`."""
    table = table_config.table(shape)
    return ShardWriter(parse_location(root), commit, table, table_config.format, int(unit.stem), count)


def write_rows(
    writer: ShardWriter, results: Iterable[ExtractedRow | FailedImage], advance: Advance
) -> tuple[Shard | None, tuple[FailedRow, ...]]:
    """Writes the rows of a unit. Returns its shard, None without rows, and its failures."""
    failures = []
    try:
        for result in results:
            if isinstance(result, ExtractedRow):
                writer.append({"key": result.key, **result.values})
            else:
                error = {name: getattr(result.error, name) for name in ("stage", "reason", "detail", "permanent")}
                failures.append(FailedRow(key=result.key.hex(), **error))
            advance(1, isinstance(result, FailedImage))
        return writer.close(), tuple(failures)
    finally:
        writer.abandon()


def open_images(rows: Iterable[dict[str, Any]], max_bytes: int) -> Iterator[EncodedImage]:
    """Yields the images of a unit. Reading one fails if its content hash is not its key."""
    for row in rows:
        key, reference = row["key"], FileReference(row["location"], row["member"])
        yield EncodedImage(key, partial(_read_unchanged, key, reference, max_bytes))


def _read_unchanged(key: bytes, reference: FileReference, max_bytes: int) -> bytes:
    data = reference.read(max_bytes)
    if hashlib.sha256(data).digest() != key:
        raise RecordError("read", CHANGED, f"{reference.label} changed during the job", permanent=False)
    return data
