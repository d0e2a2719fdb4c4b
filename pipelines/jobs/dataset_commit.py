"""Commits the dataset of a run: its catalog, labels, file names and splits."""

from collections.abc import Callable
from pathlib import Path

from features.io.atomic_files import describe_file, hash_file, make_directory, replace_atomically, temporary_path
from features.store import Dataset
from features.store.commit_log import CommitLog, LogState, build_superseding_manifest
from pipelines.ingest.image_database import ImageDatabase
from pipelines.ingest.job_database import JobDatabase
from schemas.manifests import DatasetMetadata, FileEntry, Manifest
from schemas.table_config import SHORT_FINGERPRINT


def commit_dataset(database: ImageDatabase, root: Path, dataset_type: str) -> None:
    """Commits the images of a run as the dataset in `root`, unless it contains exactly these.

    A split that a concurrent run has assigned is kept.
    """

    def decide(log_state: LogState) -> Manifest:
        database.keep_assigned(Dataset(root, log_state.live))
        files = {"catalog": write_named(root, "catalog", database.write_catalog)}
        if database.count_labels():
            files["labels"] = write_named(root, "labels", database.write_labels)
        if database.count_file_names():
            files["names"] = write_named(root, "names", database.write_file_names)
        if database.count_absent():
            files["splits"] = write_named(root, "splits", database.write_splits)
        facts = DatasetMetadata(source=dataset_type, images=database.count_by_split())
        return build_superseding_manifest(Manifest(table=root.name, files=files, facts=facts), log_state)

    CommitLog(root).update(decide)


def commit_splits(database: JobDatabase, root: Path, dataset_type: str) -> None:
    """Commits the splits of images that the dataset in `root` does not have yet. Its catalog does not change.

    Nothing is committed while the dataset's earlier splits cannot be read. `prepare features` repairs them.
    """

    def decide(log_state: LogState) -> Manifest | None:
        dataset = Dataset(root, log_state.live)
        if log_state.blocking or not database.keep_assigned(dataset) or not database.count_unassigned():
            return None
        known = dataset.manifest if dataset.manifests else None
        files = {**(known.files if known else {}), "splits": write_named(root, "splits", database.write_splits)}
        facts = known.facts if known else DatasetMetadata(source=dataset_type, images={})
        return build_superseding_manifest(Manifest(table=root.name, files=files, facts=facts), log_state)

    CommitLog(root).update(decide)


def write_named(root: Path, stem: str, write: Callable[[Path], object], directory: str = "") -> FileEntry:
    """Writes a Parquet file to `<root>/<directory>/<digest of its content>/<stem>.parquet`."""
    make_directory(root / directory)
    temporary = temporary_path(root / stem)
    try:
        write(temporary)
        path = root / directory / hash_file(temporary)[:SHORT_FINGERPRINT] / f"{stem}.parquet"
        make_directory(path.parent)
        replace_atomically(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return describe_file(path, root)
