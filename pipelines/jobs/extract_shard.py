"""Extracts one work unit of image references into one shard."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from features.extractors.extraction import ExtractedRow, ExtractionCore, FailedImage
from features.extractors.runtimes import TENSORFLOW_CPU, RuntimeChoice, load_shared_extractor
from features.images.decode import ImageLimits, raise_pixel_limit
from features.io.atomic_files import ensure_local
from features.io.locations import parse_location
from features.runtime.keras_backend import select_backend
from features.runtime.numerics import detect_toolchain
from features.store.shards import ShardWriter
from pipelines.beam.work_plans import Advance, iterate_unit
from pipelines.jobs.image_blocks import open_images
from pipelines.jobs.provenance import Provenance
from schemas.defaults import BATCH_SIZE
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
        rows = core.run(open_images(iterate_unit(unit), self.limits.bytes))
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
