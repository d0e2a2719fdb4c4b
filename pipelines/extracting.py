"""The extraction job's step: one unit of references becomes one shard."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from features.extraction import DEFAULT_BATCH, Extracted, Extractor, Failed, Source
from features.files import at_hand
from features.images import allow_pixels
from features.limits import Limits
from features.networks import shared_network
from features.numerics import toolchain
from features.references import Reference
from features.remote.paths import place
from features.store.shards import ShardWriter
from pipelines.ledger import CHANGED
from pipelines.numerics import Provenance
from pipelines.units import Advance, read_unit
from schemas.errors import RecordError
from schemas.frozen import Frozen
from schemas.manifests import Shard
from schemas.recipes import FeatureRecipe
from schemas.tables import KEY_BYTES

EXTRACT_UNIT = pa.schema([("key", pa.binary(KEY_BYTES)), ("location", pa.string()), ("member", pa.string())])


class Failure(Frozen):
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
    failures: tuple[Failure, ...]
    provenance: Provenance


@dataclass(frozen=True)
class ExtractShard:
    """Extracts the images of one unit into one shard.

    Args:
        root: str. The feature table's directory.
        network: str. The frozen network's file, named by its SHA-256.
        recipe: FeatureRecipe. What a row means.
        shape: tuple of int. Shape of one row's value.
        commit: str. The directory within the table that the shard goes to.
        count: int. How many shards the commit's key ranges divide into.
        batch_size: int. Images a call of the network at most.
        limits: Limits. What one image may measure.
    """

    root: str
    network: str
    recipe: FeatureRecipe
    shape: tuple[int, ...]
    commit: str
    count: int
    batch_size: int = DEFAULT_BATCH
    limits: Limits = field(default_factory=Limits)

    def __call__(self, unit: Path, advance: Advance) -> bytes:
        """The result of the unit named by its shard's number."""
        kept = place(self.network)
        network = shared_network(at_hand(kept, kept.stem), self.recipe.precision)
        allow_pixels(self.limits.pixels)
        extractor = Extractor(self.recipe, network, batch_size=self.batch_size, max_pixels=self.limits.pixels)
        writer = self._writer(int(unit.stem))
        failures = []
        try:
            for result in extractor.run(sources(read_unit(unit), self.limits.bytes)):
                if isinstance(result, Extracted):
                    writer.append({"key": result.key, **result.values})
                else:
                    failures.append(_failure(result.key, result.error))
                advance(1, isinstance(result, Failed))
            shard = writer.close()
        finally:
            writer.abandon()
        provenance = Provenance(numerics=network.numerics, toolchain=toolchain())
        return UnitResult(shard=shard, failures=tuple(failures), provenance=provenance).model_dump_json().encode()

    def _writer(self, number: int) -> ShardWriter:
        table = self.recipe.table(self.shape)
        return ShardWriter(place(self.root), self.commit, table, self.recipe.format, number, self.count)


def sources(rows: Iterable[dict[str, Any]], max_bytes: int) -> Iterator[Source]:
    """The rows of a unit as encoded images, each of which must have the content that its key tells."""
    for row in rows:
        yield Source(row["key"], _Unchanged(row["key"], Reference(row["location"], row["member"]), max_bytes))


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


def _failure(key: bytes, error: RecordError) -> Failure:
    return Failure(
        key=key.hex(), stage=error.stage, reason=error.reason, detail=error.detail, permanent=error.permanent
    )
