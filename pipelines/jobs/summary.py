"""The outcome of a run: its figures, its report, the dataset's commit, and whether too much failed."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from features.io.atomic_files import describe_file, hash_file, make_directory, replace_atomically, temporary_path
from features.store import Dataset
from features.store.commit_log import CommitLog, LogState, build_superseding_manifest
from pipelines.ingest.job_database import JobDatabase
from pipelines.ingest.split_records import SplitRecords
from schemas.errors import CaptError, TooManyFailuresError, UsageError
from schemas.manifests import DatasetMetadata, FileEntry, Manifest
from schemas.table_config import SHORT_FINGERPRINT

STATUSES = ("ok", "cached", "duplicate", "failed")

_log = logging.getLogger("capt.prepare")


def build_summary(counts: dict[str, int], reasons: dict[str, int]) -> dict[str, Any]:
    """Input records and what became of them; CaptError where they do not add up."""
    unknown = set(counts) - set(STATUSES)
    if unknown:
        raise CaptError(f"{sum(counts[status] for status in unknown)} records have no status; this is a fault in capt")
    by_status = {status: counts.get(status, 0) for status in STATUSES}
    return {"input": sum(by_status.values()), **by_status, "reasons": reasons}


def commit_dataset(job_database: JobDatabase, root: Path, kind: str) -> None:
    """Make the dataset in `root` what the ledger says, unless it is that already.

    A split that another run has assigned meanwhile stays.
    """

    def decide(log_state: LogState) -> Manifest:
        job_database.keep_assigned(Dataset(root, log_state.live))
        files = {"catalog": write_named(root, "catalog", job_database.write_catalog)}
        if job_database.count_labels():
            files["labels"] = write_named(root, "labels", job_database.write_labels)
        if job_database.count_file_names():
            files["names"] = write_named(root, "names", job_database.write_file_names)
        if job_database.count_absent():
            files["splits"] = write_named(root, "splits", job_database.write_splits)
        facts = DatasetMetadata(source=kind, images=job_database.splits())
        return build_superseding_manifest(Manifest(table=root.name, files=files, facts=facts), log_state)

    CommitLog(root).update(decide)


def commit_splits(records: SplitRecords, root: Path, kind: str) -> None:
    """Assign the splits of images that the dataset in `root` does not have yet; its catalog stays as it is.

    Nothing is assigned while the dataset's earlier splits cannot be read: `prepare features` repairs them.
    """

    def decide(log_state: LogState) -> Manifest | None:
        dataset = Dataset(root, log_state.live)
        if log_state.blocking or not records.keep_assigned(dataset) or not records.count_unassigned():
            return None
        known = dataset.manifest if dataset.manifests else None
        files = {**(known.files if known else {}), "splits": write_named(root, "splits", records.write_splits)}
        facts = known.facts if known else DatasetMetadata(source=kind, images={})
        return build_superseding_manifest(Manifest(table=root.name, files=files, facts=facts), log_state)

    CommitLog(root).update(decide)


def write_named(root: Path, stem: str, write: Callable[[Path], object], directory: str = "") -> FileEntry:
    """A Parquet file under a name that tells its content: written aside, then `<digest>/<stem>.parquet`.

    Args:
        root: Path. The table's directory.
        stem: str. The file's name without suffix.
        write: function of a path. Writes the file.
        directory: str. Directory within `root`; empty for the root itself.
    """
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


def parse_max_failures(text: str) -> Callable[[int], float]:
    """How many of so many records may fail, as `--max-failures` says: a share such as `5%`, or a count."""
    number = text.removesuffix("%")
    try:
        value = float(number)
    except ValueError:
        raise UsageError(f"cannot read {text!r}", location="--max-failures", hint="write 5%, or 100") from None
    if not value >= 0:
        raise UsageError(f"{text} is no share or count", location="--max-failures", hint="write 5%, or 100")
    return (lambda records: records * value / 100) if text.endswith("%") else (lambda _: value)


def check_failures(result: dict[str, Any], allowed: Callable[[int], float]) -> None:
    """TooManyFailuresError, with the figures, where more failed than is allowed."""
    failed, records = result["failed"], result["input"]
    if failed > allowed(records):
        most = ", ".join(f"{count} {reason}" for reason, count in list(result["reasons"].items())[:3])
        raise TooManyFailuresError(
            f"{failed} of {records} records failed ({most}); the others are committed",
            result,
            location=result["report"],
        )
