"""The extraction job: planned references in, committed shards out.

The commit's name is the digest of what it is to hold, so that the same command run again finds the units that a killed
run finished, and two stores made from the same images have the same names.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from features.io.atomic_files import measure_free_space
from features.io.file_trees import remove_tree
from features.references.image_limits import ImageLimits
from features.store.commit_log import CommitLog
from features.store.corruption import is_intact
from features.store.shards import MAX_SHARDS, choose_shard_count, compute_commit_name, find_shard
from pipelines.beam.runners import runs_locally
from pipelines.beam.scratch import hold_job_lock
from pipelines.beam.work_units import delete_results, read_progress, read_results, run_units, write_unit
from pipelines.ingest.job_database import JobDatabase
from pipelines.jobs.extract_shard import EXTRACT_UNIT_SCHEMA, ExtractShard, UnitResult
from pipelines.jobs.extractor_graph import GraphFile
from pipelines.jobs.provenance import Provenance, check_mixture, list_provenances, local_provenance
from pipelines.jobs.summary import write_named
from schemas.errors import CaptError, UsageError
from schemas.manifests import FeatureMetadata, Manifest, Shard
from schemas.table_config import SHORT_FINGERPRINT, FeatureTableConfig
from schemas.terminal.progress import show_progress

_SPARE = 1.05


@dataclass(frozen=True)
class ExtractionJob:
    """One run's extraction into one table.

    Args:
        root: Path. The table's directory.
        work: Path. Where plans lie.
        table_config: FeatureTableConfig. What a row means.
        network: GraphFile. The extractor.
        batch_size: int. Images a call at most.
        limits: Limits. What one image may measure.
        shards: int or None. Pins the shard count, a power of two.
        doubted: collection of str. Files of the table, by path within it, whose checksums are taken before they count.
        hints: mapping. What the step that extracts asks of its engine.
        allow_mixed: Whether the table may contain rows of several numerics classes.
    """

    root: Path
    work: Path
    table_config: FeatureTableConfig
    network: GraphFile
    batch_size: int
    limits: ImageLimits
    shards: int | None
    suspect: Collection[str] = ()
    hints: Mapping[str, str] = field(default_factory=dict)
    allow_mixed: bool = False

    @property
    def row_bytes(self) -> int:
        """Bytes of one row, its framing left out."""
        return sum(column.nbytes for column in self.table_config.table(self.network.shape).fields)

    def run(self, job_database: JobDatabase, beam_options: Sequence[str], seen: int) -> tuple[Shard, ...] | None:
        """Extract what the ledger plans and commit it; the shards written.

        Of several runs that are to do the very same one does it, and the others wait.

        Args:
            job_database: Ledger. Says what is planned.
            beam_options: sequence of str. Options of Beam and its runner.
            seen: int. The number of the table's last commit when the ledger was settled.

        Returns:
            None where the table has got another commit since, so that less may be left to do.
        """
        planned = job_database.count_planned()
        count = self.shards or choose_shard_count(planned, self.row_bytes)
        commit = self._commit_name(job_database, count)
        plan = self.work / f"{self.table_config.fingerprint[:SHORT_FINGERPRINT]}-{commit}"
        with hold_job_lock(plan.with_suffix(".lock")):
            if CommitLog(self.root).last() != seen:
                return None
            self._forget_results(plan, beam_options)
            self._check_disk(planned - _images_done(plan))
            units = self._extract(job_database, beam_options, plan, commit, count)
            held = list_provenances(CommitLog(self.root).read_state().live)
            check_mixture(str(self.root), held, [unit.provenance for unit in units], self.allow_mixed)
            self._enter(job_database, plan, units)
            self._commit(job_database, units)
            remove_tree(plan)
        return tuple(unit.shard for unit in units if unit.shard)

    def _extract(
        self, job_database: JobDatabase, beam_options: Sequence[str], plan: Path, commit: str, count: int
    ) -> list[UnitResult]:
        planned = job_database.count_planned()
        for number, rows in groupby(job_database.planned(), lambda row: find_shard(row["key"], count)):
            write_unit(plan, f"{number:05d}", rows, EXTRACT_UNIT_SCHEMA)
        worker = ExtractShard(
            root=str(self.root),
            network=str(self.network.path),
            table_config=self.table_config,
            shape=self.network.shape,
            commit=commit,
            count=count,
            batch_size=self.batch_size,
            limits=self.limits,
        )
        with show_progress("extracting", planned, "images", lambda: read_progress(plan)):
            run_units(plan, worker, beam_options, "Extract", self.hints)
        return _unit_results(plan)

    def _forget_results(self, plan: Path, beam_options: Sequence[str]) -> None:
        """Have those units done again that would not come out the same.

        If this machine alone computes, those are also the units that an interrupted run computed on another kind of
        machine, unless mixing is allowed.
        """
        keeps_all = self.allow_mixed or not any(read_results(plan)) or not runs_locally(beam_options)
        here = None if keeps_all else local_provenance(self.table_config.precision).deciding
        delete_results(plan, lambda data: self._holds(UnitResult.model_validate_json(data), here))

    def _holds(self, result: UnitResult, here: Mapping[str, str] | None) -> bool:
        """Whether a unit would come out the same again.

        Its failures are permanent, its files exist, and its rows were computed with `here` if that is given.
        """
        if here is not None and result.provenance.deciding != here:
            return False
        if any(
            not failure.permanent or self.limits.allows_retry(failure.reason, failure.detail)
            for failure in result.failures
        ):
            return False
        files = result.shard.entries() if result.shard else ()
        return all(is_intact(self.root, entry, self.suspect) for entry in files)

    def _enter(self, job_database: JobDatabase, plan: Path, units: Sequence[UnitResult]) -> None:
        planned = job_database.count_planned()
        for unit in units:
            job_database.enter_failures(
                (bytes.fromhex(f.key), f.stage, f.reason, f.detail, f.permanent) for f in unit.failures
            )
        if sum(map(_images_of, units)) != planned:
            raise CaptError(f"{planned} images were planned, and units account for another number", location=str(plan))
        job_database.finish()

    def _commit(self, job_database: JobDatabase, units: Sequence[UnitResult]) -> None:
        """Add one commit per provenance, for a commit records one."""
        files = {}
        if job_database.counts().get("failed"):
            files["failures"] = write_named(self.root, "failures", job_database.write_failures)
        for provenance in _distinct(unit.provenance for unit in units):
            facts = FeatureMetadata(
                shape=self.network.shape,
                network=self.network.sha256,
                numerics=provenance.numerics,
                toolchain=provenance.toolchain,
            )
            shards = tuple(unit.shard for unit in units if unit.shard and unit.provenance == provenance)
            if shards or files:
                manifest = Manifest(table=self.table_config.fingerprint, shards=shards, files=files, facts=facts)
                CommitLog(self.root).append(manifest)
                files = {}

    def _commit_name(self, job_database: JobDatabase, count: int) -> str:
        keys = hashlib.sha256()
        for row in job_database.planned():
            keys.update(row["key"])
        return compute_commit_name(self.table_config.fingerprint, self.network.sha256, count, keys.hexdigest())

    def _check_disk(self, images: int) -> None:
        need, free = int(images * self.row_bytes * _SPARE), measure_free_space(self.root)
        if free is not None and need > free:
            raise CaptError(
                f"{need:,} bytes are needed and {free:,} are free",
                location=str(self.root),
                hint="free some, or use int8",
            )


def _unit_results(plan: Path) -> list[UnitResult]:
    return [UnitResult.model_validate_json(data) for data in read_results(plan)]


def _images_done(plan: Path) -> int:
    """How many images the plan's finished units account for."""
    return sum(map(_images_of, _unit_results(plan)))


def _images_of(unit: UnitResult) -> int:
    return (unit.shard.rows if unit.shard else 0) + len(unit.failures)


def _distinct(some: Iterable[Provenance]) -> list[Provenance]:
    found: list[Provenance] = []
    for one in some:
        if one not in found:
            found.append(one)
    return found


def check_num_shards(shards: int | None) -> None:
    """UsageError where a pinned shard count is no power of two within bounds."""
    if shards is not None and (shards < 1 or shards > MAX_SHARDS or shards & (shards - 1)):
        raise UsageError(
            f"{shards} is no power of two up to {MAX_SHARDS}", location="--num-shards", hint="write 64, say"
        )
