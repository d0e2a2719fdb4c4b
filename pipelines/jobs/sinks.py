"""Receives the output of a `prepare` command: a store, or nothing in a dry run.

    list → hash → classify → sink.run_job(job) → sink.commit_dataset(…) → sink.summarize(…)

Both sinks are used by the same code. `StoreSink` runs jobs and commits. A plain `Sink` is that of a dry run: it
estimates jobs, commits nothing, and keeps its working files in a temporary directory.
"""

import contextlib
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from features.io.atomic_files import write_under_digest
from features.io.locations import parse_location
from features.store import CaptionTable, Dataset, Store, create_store, open_store
from features.store.commit_log import CommitLog, LogState, build_superseding_manifest
from features.store.corruption import read_recorded_corruption
from features.store.layout import REPORTS, WORK, table_root
from features.store.leases import lease, table_name
from features.store.repair import (
    FeatureTableRepair,
    open_intact_caption_table,
    open_readable_dataset,
    remove_corrupt,
    repair_log,
)
from pipelines.beam.scratch import open_scratch
from pipelines.ingest.image_database import ImageDatabase, copy_hash_cache, locate_hash_cache
from pipelines.ingest.job_database import JOB_DATABASE, JobDatabase
from schemas.errors import CaptError
from schemas.manifests import DatasetMetadata, Manifest
from schemas.table_config import CaptionTableConfig, FeatureTableConfig

_STATUSES = ("ok", "cached", "duplicate", "failed")

_log = logging.getLogger("capt.prepare")

_Database = TypeVar("_Database", bound=JobDatabase)


class Job(Protocol):
    """Work that adds to one table."""

    def run(self) -> dict[str, Any] | None:
        """Commits what the table lacks. Returns `shards` and `bytes`, or None if the job must be planned again."""

    def estimate(self, directory: Path) -> dict[str, Any]:
        """Returns the cost of `run` without running it. Writes to `directory` only."""


@dataclass
class Sink:
    """Receives the output of a job and does not change the store.

    The store is only read. If it does not exist, an empty temporary store replaces it. `root` is the directory of the
    working files: the store, or a temporary directory.
    """

    store: Store
    root: Path
    _started: float = field(default_factory=time.monotonic, init=False)

    @property
    def work(self) -> Path:
        """Work plans and job databases."""
        return self.root / WORK

    @contextlib.contextmanager
    def open_database(self, create: Callable[[Path], _Database]) -> Iterator[_Database]:
        """Creates a job database for the block."""
        with open_scratch(self.work) as scratch, contextlib.closing(create(scratch / JOB_DATABASE)) as database:
            yield database

    def hold(self, *roots: Path) -> AbstractContextManager[Any]:
        """Holds leases of tables in the block."""
        return contextlib.nullcontext()

    def table_root(self, table_config: FeatureTableConfig | CaptionTableConfig) -> Path:
        """Returns the directory of the table of this config."""
        return table_root(self.store.path, table_config)

    def repair(self, table_config: FeatureTableConfig) -> AbstractContextManager[FeatureTableRepair]:
        """Repairs a feature table around the block, which adds its missing rows."""
        return contextlib.nullcontext(FeatureTableRepair(self.store, table_config))

    def open_dataset(self, root: Path) -> Dataset:
        """Opens a dataset, after its log is repaired."""
        return open_readable_dataset(root)

    def open_caption_table(self, table_config: CaptionTableConfig) -> CaptionTable | None:
        """Opens a caption table, after its log is repaired. Returns None if the table is missing or corrupt."""
        if not self.store.has_caption_table(table_config):
            return None
        return open_intact_caption_table(self.store, table_config)

    def run_job(self, job: Job) -> dict[str, Any] | None:
        """Runs or estimates a job. Returns None if it must be planned again."""
        estimate = job.estimate(self.root)
        if estimate.get("estimated_seconds") is not None:
            elapsed = time.monotonic() - self._started
            estimate["estimated_seconds"] = round(elapsed + estimate["estimated_seconds"], 1)
        return estimate

    def commit_dataset(self, database: ImageDatabase, root: Path, facts: DatasetMetadata) -> None:
        """Commits the images of a job as the dataset in `root`, unless it contains exactly these.

        A split that a concurrent job has assigned is kept, and so is an earlier input size. Without a store, planned
        images are assumed to succeed. `facts` is the commit metadata without the numbers of images.
        """
        database.assume_results()

    def commit_splits(self, database: JobDatabase, root: Path, dataset_type: str) -> None:
        """Commits the splits of images that the dataset in `root` does not have yet. Its catalog does not change.

        Nothing is committed while the dataset's earlier splits cannot be read. `prepare features` repairs them.
        """

    def remove_corrupt(self, root: Path) -> None:
        """Deletes recorded corrupt files of a table that no commit references."""

    def summarize(self, database: JobDatabase, root: Path, stem: str) -> dict[str, Any]:
        """Returns the summary that both sinks have, and logs how splits were assigned.

        Each record has its final status. `root` is the dataset's directory, `stem` the file name of the run report.
        """
        splits = database.count_split_origins()
        if splits["hashed"]:
            message = "%d images have no stated split. A hash of the image ID assigns it."
            _log.info(f"%s: {message}", root.name, splits["hashed"])
        if splits["kept"]:
            message = "%d images keep their earlier split, although the input states another."
            hint = "To assign the splits again, drop the dataset and prepare it again."
            _log.warning(f"%s: {message} {hint}", root.name, splits["kept"])
        counts = database.count_by_status()
        by_status = {status: counts.pop(status, 0) for status in _STATUSES}
        if counts:
            raise CaptError(f"{sum(counts.values())} records have no status. This is a bug in capt")
        return {
            "input": sum(by_status.values()),
            **by_status,
            "reasons": database.count_by_reason(),
            "splits": splits,
            "shared_ids": database.identities.count_shared_ids(),
            "dataset": root.name,
            **self._report(database, root, stem),
            "seconds": round(time.monotonic() - self._started, 3),
        }

    def _report(self, database: JobDatabase, root: Path, stem: str) -> dict[str, Any]:
        counts = database.count_by_status()
        return {"dry_run": True, "hits": counts.get("cached", 0), "misses": counts.get("ok", 0)}


class StoreSink(Sink):
    """Writes to a store."""

    def hold(self, *roots: Path) -> AbstractContextManager[Any]:
        return lease(self.store.path, "prepare", {table_name(self.store.path, root): () for root in roots})

    def table_root(self, table_config: FeatureTableConfig | CaptionTableConfig) -> Path:
        if isinstance(table_config, FeatureTableConfig):
            return self.store.feature_table_root(table_config)
        return self.store.caption_table_root(table_config)

    def repair(self, table_config: FeatureTableConfig) -> AbstractContextManager[FeatureTableRepair]:
        return FeatureTableRepair(self.store, table_config)

    def open_dataset(self, root: Path) -> Dataset:
        repair_log(root)
        return open_readable_dataset(root)

    def open_caption_table(self, table_config: CaptionTableConfig) -> CaptionTable | None:
        repair_log(self.store.caption_table_root(table_config))
        return open_intact_caption_table(self.store, table_config)

    def run_job(self, job: Job) -> dict[str, Any] | None:
        return job.run()

    def commit_dataset(self, database: ImageDatabase, root: Path, facts: DatasetMetadata) -> None:
        def decide(log_state: LogState) -> Manifest:
            known = Dataset(root, log_state.live)
            database.keep_assigned(known)
            files = {"catalog": write_under_digest(root, "catalog", database.write_catalog)}
            if database.count_labels():
                files["labels"] = write_under_digest(root, "labels", database.write_labels)
            if database.count_file_names():
                files["names"] = write_under_digest(root, "names", database.write_file_names)
            if database.count_absent():
                files["splits"] = write_under_digest(root, "splits", database.write_splits)
            images = database.count_by_split()
            input_size = known.input_size or (facts.input_size if images else None)
            own = facts.model_copy(update={"images": images, "input_size": input_size})
            return build_superseding_manifest(Manifest(table=root.name, files=files, facts=own), log_state)

        CommitLog(root).update(decide)

    def commit_splits(self, database: JobDatabase, root: Path, dataset_type: str) -> None:
        def decide(log_state: LogState) -> Manifest | None:
            dataset = Dataset(root, log_state.live)
            if log_state.blocking or not database.keep_assigned(dataset) or not database.count_unassigned():
                return None
            known = dataset.manifest if dataset.manifests else None
            splits = write_under_digest(root, "splits", database.write_splits)
            files = {**(known.files if known else {}), "splits": splits}
            facts = known.facts if known else DatasetMetadata(source=dataset_type, images={})
            return build_superseding_manifest(Manifest(table=root.name, files=files, facts=facts), log_state)

        CommitLog(root).update(decide)

    def remove_corrupt(self, root: Path) -> None:
        remove_corrupt(root, read_recorded_corruption(self.store.path, root))

    def _report(self, database: JobDatabase, root: Path, stem: str) -> dict[str, Any]:
        report = write_under_digest(root, stem, database.write_report, REPORTS)
        return {"report": str(root / report.path)}


@contextlib.contextmanager
def open_sink(store: str, is_dry_run: bool) -> Iterator[Sink]:
    """Opens the sink of a command. The store, a path or URI, is created if it does not exist, except in a dry run."""
    if not is_dry_run:
        created = create_store(store)
        yield StoreSink(created, created.path)
        return
    root = parse_location(store)
    with tempfile.TemporaryDirectory(prefix="capt-dry-run-") as directory:
        here = Path(directory)
        locate_hash_cache(here).parent.mkdir(parents=True)
        copy_hash_cache(locate_hash_cache(root), locate_hash_cache(here))
        yield Sink(open_store(root) if root.exists() else create_store(here / "store"), here)


def log_removed(removed: int, dataset: str, records: str, whole: str) -> int:
    """Logs how many records of the last commit the commit of this run lacks. Returns the number."""
    if removed:
        message = f"%d {records} of the last commit are not in this run, or failed. This run removes them from the"
        _log.warning(f"%s: {message} {whole}. To keep them, list all files, old and new.", dataset, removed)
    return removed
