"""The extraction job: planned references in, committed shards out.

The commit's name is the digest of what it is to hold, so that the same command run again finds the units that a killed
run finished, and two stores made from the same images have the same names.
"""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from features.networks import numerics_class, toolchain
from features.progress import watching
from features.store.log import CommitLog
from features.store.shards import MAX_SHARDS, commit_name, shard_count, shard_of
from pipelines.extracting import EXTRACT_UNIT, ExtractShard, UnitResult
from pipelines.frozen import FrozenFile
from pipelines.ledger import Ledger
from pipelines.outcome import write_named
from pipelines.units import done_so_far, results, run_units, write_unit
from schemas.errors import CaptError, UsageError
from schemas.manifests import FeatureFacts, Manifest, Shard
from schemas.recipes import SHORT_FINGERPRINT, FeatureRecipe

_SPARE = 1.05


@dataclass(frozen=True)
class ExtractionJob:
    """One run's extraction into one table.

    Args:
        root: Path. The table's directory.
        work: Path. Where plans lie.
        recipe: FeatureRecipe. What a row means.
        network: FrozenFile. The extractor.
        batch_size: int. Images a call at most.
        shards: int or None. Pins the shard count, a power of two.
    """

    root: Path
    work: Path
    recipe: FeatureRecipe
    network: FrozenFile
    batch_size: int
    shards: int | None

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, its framing left out."""
        return sum(field.nbytes for field in self.recipe.table(self.network.shape).fields)

    def run(self, ledger: Ledger, beam_options: Sequence[str]) -> tuple[Shard, ...]:
        """Extract what the ledger plans and commit it; the shards written."""
        planned = ledger.count_planned()
        self._check_disk(planned)
        count = self.shards or shard_count(planned, self.row_bytes)
        commit = self._commit_name(ledger, count)
        plan = self.work / f"{self.recipe.fingerprint[:SHORT_FINGERPRINT]}-{commit}"
        for number, rows in groupby(ledger.planned(), lambda row: shard_of(row["key"], count)):
            write_unit(plan, f"{number:05d}", rows, EXTRACT_UNIT)
        worker = ExtractShard(
            root=str(self.root),
            network=str(self.network.path),
            recipe=self.recipe,
            shape=self.network.shape,
            commit=commit,
            count=count,
            batch_size=self.batch_size,
        )
        with watching("extracting", planned, "images", lambda: (done_so_far(plan), "")):
            run_units(plan, worker, beam_options, "Extract")
        shards = self._enter(ledger, plan, planned)
        self._commit(ledger, shards)
        shutil.rmtree(plan, ignore_errors=True)
        return shards

    def _enter(self, ledger: Ledger, plan: Path, planned: int) -> tuple[Shard, ...]:
        shards, failed = [], 0
        for result in (UnitResult.model_validate_json(data) for data in results(plan)):
            failed += len(result.failures)
            ledger.enter_failures(
                (bytes.fromhex(f.key), f.stage, f.reason, f.detail, f.permanent) for f in result.failures
            )
            if result.shard:
                shards.append(result.shard)
        if sum(shard.rows for shard in shards) + failed != planned:
            raise CaptError(f"{planned} images were planned, and units account for another number", where=str(plan))
        ledger.finish()
        return tuple(shards)

    def _commit(self, ledger: Ledger, shards: tuple[Shard, ...]) -> None:
        failures = {}
        if ledger.counts().get("failed"):
            failures["failures"] = write_named(self.root, "failures", ledger.write_failures)
        facts = FeatureFacts(
            shape=self.network.shape,
            network=self.network.sha256,
            numerics=numerics_class(),
            toolchain=toolchain(),
        )
        manifest = Manifest(table=self.recipe.fingerprint, shards=shards, files=failures, facts=facts)
        CommitLog(self.root).append(manifest)

    def _commit_name(self, ledger: Ledger, count: int) -> str:
        keys = hashlib.sha256()
        for row in ledger.planned():
            keys.update(row["key"])
        return commit_name(self.recipe.fingerprint, self.network.sha256, count, keys.hexdigest())

    def _check_disk(self, planned: int) -> None:
        need, free = int(planned * self.row_bytes * _SPARE), shutil.disk_usage(self.root).free
        if need > free:
            raise CaptError(
                f"{need:,} bytes are needed and {free:,} are free", where=str(self.root), mend="free some, or use int8"
            )


def check_shards(shards: int | None) -> None:
    """UsageError where a pinned shard count is no power of two within bounds."""
    if shards is not None and (shards < 1 or shards > MAX_SHARDS or shards & (shards - 1)):
        raise UsageError(f"{shards} is no power of two up to {MAX_SHARDS}", where="--shards", mend="write 64, say")
