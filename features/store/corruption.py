"""Checks files against their manifests, and records which files verification found corrupt.

    STORE/cache/damage.json    {"paths":["features/ab…/0123…/features-….tfrecord",…],"version":1}

The record lists candidates: a file that was repaired later is not corrupt.
"""

import errno
import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from features.io.atomic_files import ensure_local, hash_file, write
from features.io.file_trees import FileChecker
from features.store.commit_log import CommitLog
from features.store.layout import CACHE
from schemas.manifests import FileEntry, Manifest, Shard
from schemas.strict_json import parse_json
from schemas.table_config import canonical_json

RECORD = "damage.json"

_log = logging.getLogger("capt.store")


def record_corruption(store: Path, paths: Iterable[str]) -> None:
    """Records the corrupt and missing files that a verification found, in place of earlier records.

    Args:
        store: The store's directory.
        paths: The files, by path within the store.
    """
    record, listed = store / CACHE / RECORD, sorted(set(paths))
    try:
        if listed:
            write(record, canonical_json({"version": 1, "paths": listed}))
        else:
            record.unlink(missing_ok=True)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        _log.warning("%s: the store is read-only, so the findings are not recorded for a repair.", store)


def read_recorded_corruption(store: Path, root: Path) -> frozenset[str]:
    """Returns the recorded files in the directory `root`, by path within it."""
    try:
        listed = parse_json((store / CACHE / RECORD).read_bytes())["paths"]
        prefix = "" if root == store else f"{root.relative_to(store).as_posix()}/"
        return frozenset(path.removeprefix(prefix) for path in listed if path.startswith(prefix))
    except FileNotFoundError:
        return frozenset()
    except (ValueError, KeyError, TypeError, AttributeError):
        _log.warning("%s cannot be read. Run `capt store verify` again.", store / CACHE / RECORD)
        return frozenset()


def check_file(root: Path, entry: FileEntry) -> Path:
    """Verifies the checksum of a referenced file and returns its path on this machine.

    Raises:
        CorruptFileError: The file is missing or corrupt.
    """
    return ensure_local(root / entry.path, entry.sha256, check=True)


def is_intact(root: Path, entry: FileEntry, suspect: Collection[str] = ()) -> bool:
    """Returns whether a referenced file exists with its size and, if it is suspect, with its checksum."""
    try:
        size = (root / entry.path).stat().st_size
    except OSError:
        return False
    return size == entry.bytes and (entry.path not in suspect or has_valid_checksum(root, entry))


def has_valid_checksum(root: Path, entry: FileEntry) -> bool:
    """Returns whether a referenced file exists with its checksum."""
    try:
        return hash_file(root / entry.path) == entry.sha256
    except OSError:
        return False


@dataclass(frozen=True)
class CorruptCommit:
    """A commit that must be replaced.

    Args:
        manifest: The commit.
        rest: The commit that replaces it: its intact shards and files, with the same metadata.
        corrupt: The corrupt and missing files.
    """

    manifest: Manifest
    rest: Manifest
    corrupt: tuple[FileEntry, ...]

    @property
    def shards(self) -> list[Shard]:
        """The shards that are not in the rest."""
        kept = {shard.data.path for shard in self.rest.shards}
        return [shard for shard in self.manifest.shards if shard.data.path not in kept]


@dataclass(frozen=True)
class TableHealth:
    """The intact and the corrupt parts of a feature table.

    Args:
        manifests: The live commits, oldest first, without their corrupt files.
        corrupt_commits: The commits that must be replaced.
        blocking: Digests of unreadable manifests that may be live or may replace others.
    """

    manifests: tuple[Manifest, ...]
    corrupt_commits: tuple[CorruptCommit, ...]
    blocking: tuple[str, ...]

    @property
    def is_healthy(self) -> bool:
        """Whether nothing is corrupt."""
        return not (self.corrupt_commits or self.blocking)

    def corrupt_paths(self) -> set[str]:
        """Returns the corrupt and missing files, by path within the table."""
        return {entry.path for corrupt_commit in self.corrupt_commits for entry in corrupt_commit.corrupt}


def diagnose(root: Path, suspect: Collection[str]) -> TableHealth:
    """Finds the corrupt parts of a feature table.

    It checks the size of every file, and the checksums of indexes, of files other than shards, and of suspect files.

    Args:
        root: The table's directory.
        suspect: Files that verification found corrupt, by path within the table.

    Raises:
        CorruptFileError: The log cannot be read.
    """
    log_state = CommitLog(root).read_state()
    manifests, corrupt_commits, files = [], [], FileChecker(root)
    for manifest in log_state.live:
        corrupt_commit = _examine(files, manifest, suspect)
        if corrupt_commit.corrupt or manifest.digest in log_state.suspect:
            corrupt_commits.append(corrupt_commit)
        manifests.append(corrupt_commit.rest if corrupt_commit.corrupt else manifest)
    return TableHealth(tuple(manifests), tuple(corrupt_commits), log_state.blocking)


def _examine(files: FileChecker, manifest: Manifest, suspect: Collection[str]) -> CorruptCommit:
    indexes = (shard.index.path for shard in manifest.shards if shard.index)
    hashed = {*suspect, *indexes, *(entry.path for entry in manifest.files.values())}
    corrupt = tuple(
        entry for entry in manifest.entries() if not files.is_intact(entry, check_hash=entry.path in hashed)
    )
    paths = {entry.path for entry in corrupt}
    rest = manifest.model_copy(
        update={
            "replaces": (manifest.digest,),
            "shards": tuple(s for s in manifest.shards if not paths & {entry.path for entry in s.entries()}),
            "files": {role: entry for role, entry in manifest.files.items() if entry.path not in paths},
        }
    )
    return CorruptCommit(manifest, rest, corrupt)
