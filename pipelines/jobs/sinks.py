"""Receives the output of a `prepare` command: a store, or nothing in a dry run.

    list → hash → plan → sink.run_and_commit(job) → sink.commit_dataset(…)

Both sinks are used by the same code. `StoreSink` runs jobs and commits. A plain `Sink` is that of a dry run: it
estimates jobs, commits nothing, and keeps its working files in a temporary directory.
"""

import contextlib
import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from features.io.atomic_files import working_path
from features.io.locations import parse_location
from features.store import CaptionTable, Dataset, Store, create_store, open_store
from features.store.corruption import read_recorded_corruption
from features.store.layout import CACHE, FEATURES, NETWORKS, REPORTS, TEXT, WORK
from features.store.leases import lease, table_name
from features.store.repair import (
    FeatureTableRepair,
    open_intact_caption_table,
    open_readable_dataset,
    remove_corrupt,
    repair_log,
)
from pipelines.beam.scratch import open_scratch
from pipelines.ingest.caption_database import CaptionDatabase
from pipelines.ingest.image_database import ImageDatabase, copy_hash_cache
from pipelines.ingest.job_database import JobDatabase
from pipelines.jobs.dataset_commit import commit_dataset, commit_splits, write_named
from pipelines.jobs.summary import build_summary
from schemas.table_config import SHORT_FINGERPRINT, CaptionTableConfig, FeatureTableConfig

_log = logging.getLogger("capt.prepare")

_DATABASE = "ledger.sqlite"


@dataclass(frozen=True)
class Workspace:
    """The working directories of a run.

    Args:
        root: The store, or a temporary directory.
    """

    root: Path

    @property
    def work(self) -> Path:
        """Work plans and job databases."""
        return self.root / WORK

    @property
    def hash_cache(self) -> Path:
        """Content hashes by file time."""
        return working_path(self.root / CACHE / "stat.sqlite")

    @property
    def graphs(self) -> Path:
        """Frozen extractor graphs by digest."""
        return self.root / NETWORKS

    @contextlib.contextmanager
    def open_image_database(self) -> Iterator[ImageDatabase]:
        """Creates a database of images for the block."""
        with (
            open_scratch(self.work) as directory,
            contextlib.closing(ImageDatabase(directory / _DATABASE, self.hash_cache)) as database,
        ):
            yield database

    @contextlib.contextmanager
    def open_caption_database(self) -> Iterator[CaptionDatabase]:
        """Creates a database of captions for the block."""
        with (
            open_scratch(self.work) as directory,
            contextlib.closing(CaptionDatabase(directory / _DATABASE)) as database,
        ):
            yield database


class Job(Protocol):
    """Work that adds to one table."""

    def run(self) -> dict[str, Any] | None:
        """Commits what the table lacks. Returns `shards` and `bytes`, or None if the job must be planned again."""

    def estimate(self, directory: Path) -> dict[str, Any]:
        """Returns the cost of `run` without running it. Writes to `directory` only."""


@dataclass
class Sink:
    """Receives the output of a run and writes nothing.

    Args:
        store: The store, which is only read. If it does not exist, an empty temporary store replaces it.
        workspace: Working directories.
    """

    store: Store
    workspace: Workspace

    def __post_init__(self) -> None:
        self._started = time.monotonic()

    def hold(self, *roots: Path) -> AbstractContextManager[Any]:
        """Holds leases of tables in the block."""
        return contextlib.nullcontext()

    def feature_table_root(self, table_config: FeatureTableConfig) -> Path:
        """Returns the directory of the feature table of this config."""
        return self.store.path / FEATURES / table_config.fingerprint[:SHORT_FINGERPRINT]

    def caption_table_root(self, table_config: CaptionTableConfig) -> Path:
        """Returns the directory of the caption table of this config."""
        return self.store.path / TEXT / table_config.fingerprint[:SHORT_FINGERPRINT]

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

    def run_and_commit(self, job: Job) -> dict[str, Any] | None:
        """Runs or estimates a job. Returns None if it must be planned again."""
        estimate = job.estimate(self.workspace.root)
        if estimate.get("estimated_seconds") is not None:
            elapsed = time.monotonic() - self._started
            estimate["estimated_seconds"] = round(elapsed + estimate["estimated_seconds"], 1)
        return estimate

    def commit_dataset(self, database: ImageDatabase, root: Path, dataset_type: str) -> None:
        """Commits the dataset. Without a store, all planned images are assumed to succeed."""
        database.assume_results()

    def commit_splits(self, database: JobDatabase, root: Path, dataset_type: str) -> None:
        """Commits the splits of new images of the dataset."""

    def remove_corrupt(self, root: Path) -> None:
        """Deletes recorded corrupt files of a table that no commit references."""

    def summarize(self, database: ImageDatabase | CaptionDatabase, root: Path, stem: str) -> dict[str, Any]:
        """Returns the summary that both sinks have, and logs how splits were assigned.

        Args:
            database: The records, each with its final status.
            root: The dataset's directory.
            stem: File name of the run report.
        """
        splits = database.count_split_origins()
        if splits["hashed"]:
            message = "%d images have no stated split. A hash of the image ID assigns it."
            _log.info(f"%s: {message}", root.name, splits["hashed"])
        if splits["kept"]:
            message = "%d images keep their earlier split, although the input states another."
            hint = "To assign the splits again, drop the dataset and prepare it again."
            _log.warning(f"%s: {message} {hint}", root.name, splits["kept"])
        return {
            **build_summary(database.count_by_status(), database.count_by_reason()),
            "splits": splits,
            "shared_ids": database.identities.count_shared_ids(),
            "dataset": root.name,
            **self._report(database, root, stem),
            "seconds": round(time.monotonic() - self._started, 3),
        }

    def _report(self, database: ImageDatabase | CaptionDatabase, root: Path, stem: str) -> dict[str, Any]:
        counts = database.count_by_status()
        return {"dry_run": True, "hits": counts.get("cached", 0), "misses": counts.get("ok", 0)}


class StoreSink(Sink):
    """Writes to a store."""

    def hold(self, *roots: Path) -> AbstractContextManager[Any]:
        return lease(self.store.path, "prepare", {table_name(self.store.path, root): () for root in roots})

    def feature_table_root(self, table_config: FeatureTableConfig) -> Path:
        return self.store.feature_table_root(table_config)

    def caption_table_root(self, table_config: CaptionTableConfig) -> Path:
        return self.store.caption_table_root(table_config)

    def repair(self, table_config: FeatureTableConfig) -> AbstractContextManager[FeatureTableRepair]:
        return FeatureTableRepair(self.store, table_config)

    def open_dataset(self, root: Path) -> Dataset:
        repair_log(root)
        return open_readable_dataset(root)

    def open_caption_table(self, table_config: CaptionTableConfig) -> CaptionTable | None:
        repair_log(self.store.caption_table_root(table_config))
        return open_intact_caption_table(self.store, table_config)

    def run_and_commit(self, job: Job) -> dict[str, Any] | None:
        return job.run()

    def commit_dataset(self, database: ImageDatabase, root: Path, dataset_type: str) -> None:
        commit_dataset(database, root, dataset_type)

    def commit_splits(self, database: JobDatabase, root: Path, dataset_type: str) -> None:
        commit_splits(database, root, dataset_type)

    def remove_corrupt(self, root: Path) -> None:
        remove_corrupt(root, read_recorded_corruption(self.store.path, root))

    def _report(self, database: ImageDatabase | CaptionDatabase, root: Path, stem: str) -> dict[str, Any]:
        report = write_named(root, stem, database.write_report, REPORTS)
        return {"report": str(root / report.path)}


@contextlib.contextmanager
def open_sink(store: str, is_dry_run: bool) -> Iterator[Sink]:
    """Opens the sink of a command.

    Args:
        store: Path or URI of the store. It is created if it does not exist, except in a dry run.
        is_dry_run: Whether to write nothing.
    """
    if not is_dry_run:
        created = create_store(store)
        yield StoreSink(created, Workspace(created.path))
        return
    root = parse_location(store)
    with tempfile.TemporaryDirectory(prefix="capt-dry-run-") as directory:
        workspace = Workspace(Path(directory))
        workspace.hash_cache.parent.mkdir(parents=True)
        copy_hash_cache(Workspace(root).hash_cache, workspace.hash_cache)
        yield Sink(open_store(root) if root.exists() else create_store(workspace.root / "store"), workspace)
