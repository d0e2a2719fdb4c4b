"""Checks files against their manifests, and records which files verification found corrupt.

    STORE/cache/damage.json    {"paths":["features/ab…/0123…/features-….tfrecord",…],"version":1}

The record lists candidates: a file that was repaired later is not corrupt.
"""

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from features.io.atomic_files import ensure_local, hash_file, write
from features.io.file_trees import FileChecker
from features.store.commit_log import CommitLog
from features.store.layout import CACHE
from schemas.errors import ACCESS_DENIED
from schemas.manifests import FileEntry, Manifest, Shard
from schemas.strict_json import parse_json
from schemas.table_config import canonical_json

RECORD = "damage.json"

_log = logging.getLogger("capt.store")


def record_corruption(store: Path, paths: Iterable[str]) -> None:
    """Records the corrupt and missing files, by path within the store, in place of earlier records."""
    record, listed = store / CACHE / RECORD, sorted(set(paths))
    try:
        if listed:
            write(record, canonical_json({"version": 1, "paths": listed}))
        else:
            record.unlink(missing_ok=True)
    except OSError as error:
        if error.errno not in ACCESS_DENIED:
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
    """Returns a referenced file's path on this machine; raises CorruptFileError if it is missing or corrupt."""
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
    """A commit, its corrupt and missing files, and the commit of the intact `rest`, which replaces it."""

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

    manifests: tuple[Manifest, ...] = ()
    corrupt_commits: tuple[CorruptCommit, ...] = ()
    blocking: tuple[str, ...] = ()

    @property
    def is_healthy(self) -> bool:
        return not (self.corrupt_commits or self.blocking)


def diagnose(root: Path, suspect: Collection[str]) -> TableHealth:
    """Finds the corrupt parts of a feature table; raises CorruptFileError if its log cannot be read.

    It checks the size of every file, and the checksums of indexes, of files other than shards, and of suspect files.

    Args:
        root: The table's directory.
        suspect: Files that verification found corrupt, by path within the table.
    """
    log_state, files = CommitLog(root).read_state(), FileChecker(root)
    examined = [_examine(files, manifest, suspect) for manifest in log_state.live]
    return TableHealth(
        manifests=tuple(one.rest if one.corrupt else one.manifest for one in examined),
        corrupt_commits=tuple(one for one in examined if one.corrupt or one.manifest.digest in log_state.suspect),
        blocking=log_state.blocking,
    )


def _examine(files: FileChecker, manifest: Manifest, suspect: Collection[str]) -> CorruptCommit:
    indexes = (shard.index.path for shard in manifest.shards if shard.index)
    hashed = {*suspect, *indexes, *(entry.path for entry in manifest.files.values())}
    corrupt = [entry for entry in manifest.entries() if not files.is_intact(entry, check_hash=entry.path in hashed)]
    paths = {entry.path for entry in corrupt}
    shards = tuple(shard for shard in manifest.shards if paths.isdisjoint(one.path for one in shard.entries()))
    others = {role: entry for role, entry in manifest.files.items() if entry.path not in paths}
    rest = manifest.model_copy(update={"replaces": (manifest.digest,), "shards": shards, "files": others})
    return CorruptCommit(manifest, rest, tuple(corrupt))
