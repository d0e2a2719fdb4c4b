"""Extracts the planned images of a job, or imports their arrays, into committed shards.

The commit's name is the digest of its content. So the same command finds the work units that an interrupted job
finished, and two stores of the same images have the same names.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from features.images.decode import ImageLimits
from features.io.atomic_files import write_under_digest
from features.io.file_trees import remove_tree
from features.io.locks import wait_for_lock
from features.store.commit_log import CommitLog
from features.store.corruption import is_intact
from features.store.shards import check_disk_space, choose_shard_count, compute_commit_name, find_shard
from pipelines.beam.runner_options import parse_hints, runs_locally
from pipelines.beam.work_plans import delete_results, read_progress, read_results, write_unit
from pipelines.beam.work_units import run_units
from pipelines.ingest.image_database import ImageDatabase
from pipelines.jobs.estimate import estimate_table
from pipelines.jobs.extract_shard import ExtractedUnit
from pipelines.jobs.feature_source import FeatureSource
from pipelines.jobs.provenance import check_mixture, list_provenances
from schemas.errors import CaptError
from schemas.manifests import FeatureMetadata, Manifest
from schemas.options.prepare import PrepareFeatures
from schemas.table_config import SHORT_FINGERPRINT, FeatureTableConfig
from schemas.terminal.progress import show_progress


@dataclass(frozen=True)
class ExtractionJob:
    """Extracts the images that a table lacks. A `pipelines.jobs.sinks.Job`.

    Attributes:
        source: Source of the features; None if no image lacks them.
        shape: Shape of one image's features, if known.
        last_commit: Number of the table's last commit when the records were classified.
        suspect: Files of the table, by path in it, whose checksums must be verified before they are used.
    """

    database: ImageDatabase
    root: Path
    work: Path
    table_config: FeatureTableConfig
    source: FeatureSource | None
    shape: tuple[int, ...] | None
    limits: ImageLimits
    last_commit: int
    suspect: Collection[str]
    options: PrepareFeatures

    def run(self) -> dict[str, Any] | None:
        """Extracts the planned images and commits them. If several runs have the same job, one of them runs it.

        Returns `shards` and `bytes` of the commit; None if the table has a new commit, which may contain some images.
        """
        source = self.source
        if source is None:
            return {"shards": 0, "bytes": 0}
        planned = self.database.count_planned()
        count = self.options.num_shards or choose_shard_count(planned, self._measure_row(source.shape))
        keys = hashlib.sha256()
        for row in self.database.list_planned():
            keys.update(row["key"])
        commit = compute_commit_name(self.table_config.fingerprint, source.name, count, keys.hexdigest())
        plan = self.work / f"{self.table_config.fingerprint[:SHORT_FINGERPRINT]}-{commit}"
        with wait_for_lock(plan.with_suffix(".lock")):
            if CommitLog(self.root).last() != self.last_commit:
                return None
            self._delete_results(source, plan)
            finished = sum(unit.images for unit in _read_units(plan))
            row_bytes = (planned - finished) * self._measure_row(source.shape)
            hint = "Free some space, or use --storage-dtype int8."
            check_disk_space(self.root, row_bytes, "the extraction", hint)
            units = self._extract(source, plan, commit, count)
            try:
                source.check_unchanged()
            except CaptError:
                remove_tree(plan)  # Its units have rows of the changed input.
                raise
            held = list_provenances(CommitLog(self.root).read_state().live)
            check_mixture(str(self.root), held, [unit.provenance for unit in units], self.options.allow_mixed_numerics)
            if sum(unit.images for unit in units) != planned:
                message = f"{planned} images were planned, and the work units contain another number"
                raise CaptError(message, location=str(plan), hint="Run the same command again.")
            self.database.insert_results(
                (bytes.fromhex(one.key), one.stage, one.reason, one.detail, one.permanent)
                for unit in units
                for one in unit.failures
            )
            self._commit(source, units)
            remove_tree(plan)
        shards = [unit.shard for unit in units if unit.shard]
        return {"shards": len(shards), "bytes": sum(shard.data.bytes for shard in shards)}

    def estimate(self, directory: Path) -> dict[str, Any]:
        counts = self.database.count_by_status()
        planned = counts.get("planned", 0)
        missing = planned + counts.get("pending", 0)
        speed = None
        if self.source and planned:
            speed = self.source.measure_speed(self.table_config, self.source.list_planned(self.database))
        return {
            "shards": 0,
            "bytes": missing * self._measure_row(self.shape) if self.shape else 0,
            "images_per_second": round(speed, 1) if speed else None,
            "estimated_seconds": missing / speed if speed else None if missing else 0.0,
            "shape": list(self.shape) if self.shape else None,
            "scale": self._estimate_table(self.shape, speed, directory) if self.shape else None,
        }

    def _estimate_table(self, shape: tuple[int, ...], speed: float | None, directory: Path) -> dict[str, Any] | None:
        """Returns the cost of the table; None without images, or if some are not downloaded yet."""
        images = sum(self.database.count_by_split().values())
        if not images or self.database.count_pending():
            return None
        catalog = directory / "catalog.parquet"
        self.database.write_catalog(catalog)
        return estimate_table(
            self.options.assume_images or images,
            row=self._measure_row(shape),
            catalog=catalog.stat().st_size / images,
            database=self.database.bytes / images,
            speed=speed,
            num_shards=self.options.num_shards,
            temporary=directory,
        )

    def _measure_row(self, shape: tuple[int, ...]) -> int:
        """Returns the bytes of one row, without framing."""
        return sum(column.nbytes for column in self.table_config.table(shape).fields)

    def _extract(self, source: FeatureSource, plan: Path, commit: str, count: int) -> list[ExtractedUnit]:
        planned = source.list_planned(self.database)
        for number, rows in groupby(planned, lambda row: find_shard(row["key"], count)):
            write_unit(plan, f"{number:05d}", rows, source.unit_schema)
        worker = source.make_worker(self.root, self.table_config, commit, count)
        total, hints = self.database.count_planned(), parse_hints(self.options.resource_hint)
        with show_progress(
            "extracting" if source.network else "importing", total, "images", lambda: read_progress(plan)
        ):
            run_units(plan, worker, self.options.beam_options, "Extract", hints)
        return _read_units(plan)

    def _delete_results(self, source: FeatureSource, plan: Path) -> None:
        """Deletes the results of units that would now have another result.

        If mixing is not allowed, so has a unit of another numerics class or toolchain, if only this machine computes,
        or of another backend or device. All backends read the same file of a Keras model, so they share a plan.
        """
        allows_mixture = self.options.allow_mixed_numerics
        checks_here = not allows_mixture and runs_locally(self.options.beam_options) and any(read_results(plan))
        here = source.local_provenance(self.table_config) if checks_here else None

        def is_final(data: bytes) -> bool:
            unit = ExtractedUnit.model_validate_json(data)
            files = unit.shard.entries() if unit.shard else ()
            return (
                (here is None or unit.provenance.deciding == here.deciding)
                and (allows_mixture or source.may_add(unit.provenance.numerics))
                and not any(not one.permanent or allows_retry(one.reason, one.detail) for one in unit.failures)
                and all(is_intact(self.root, entry, self.suspect) for entry in files)
            )

        allows_retry = self.limits.allows_retry
        delete_results(plan, is_final)

    def _commit(self, source: FeatureSource, units: Sequence[ExtractedUnit]) -> None:
        """Appends one commit per provenance."""
        files = {}
        if self.database.count_by_status().get("failed"):
            files["failures"] = write_under_digest(self.root, "failures", self.database.write_failures)
        by_provenance: defaultdict[str, list[ExtractedUnit]] = defaultdict(list)
        for unit in units:
            by_provenance[json.dumps(unit.provenance.model_dump(), sort_keys=True)].append(unit)
        for some in by_provenance.values():
            provenance = some[0].provenance.model_dump()
            facts = FeatureMetadata(
                shape=source.shape, network=source.network, network_format=source.network_format, **provenance
            )
            shards = tuple(unit.shard for unit in some if unit.shard)
            if shards or files:
                manifest = Manifest(table=self.table_config.fingerprint, shards=shards, files=files, facts=facts)
                CommitLog(self.root).append(manifest)
                files = {}


def _read_units(plan: Path) -> list[ExtractedUnit]:
    return [ExtractedUnit.model_validate_json(data) for data in read_results(plan)]
