"""Damage: what verification found wrong with a store, noted for the jobs that heal it, and what is left of a table.

    STORE/cache/damage.json    {"paths":["features/ab…/0123…/features-….tfrecord",…],"version":1}

The note tells where to look, and what lies there decides: a file that was healed since is no damage.
"""

import errno
import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from features.io.atomic_files import hash_file, write
from features.io.bucket import Listed
from features.io.cache import local_cache
from features.io.locations import ObjectPath
from features.store.commit_log import CommitLog
from features.store.layout import CACHE
from schemas.manifests import FileEntry, Manifest, Shard
from schemas.strict_json import parse_json
from schemas.table_config import canonical_json

NOTE = "damage.json"

_log = logging.getLogger("capt.store")


def record_corruption(store: Path, paths: Iterable[str]) -> None:
    """Note the files, by path within the store, that a verification found damaged or missing; older notes go."""
    note, listed = store / CACHE / NOTE, sorted(set(paths))
    try:
        if listed:
            write(note, canonical_json({"version": 1, "paths": listed}))
        else:
            note.unlink(missing_ok=True)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        _log.warning("the store cannot be written to, so what was found is not noted: %s", store)


def recorded_corruption(store: Path, root: Path) -> frozenset[str]:
    """The files noted that lie in the directory `root`, by path within it."""
    try:
        listed = parse_json((store / CACHE / NOTE).read_bytes())["paths"]
        prefix = "" if root == store else f"{root.relative_to(store).as_posix()}/"
        return frozenset(path.removeprefix(prefix) for path in listed if path.startswith(prefix))
    except FileNotFoundError:
        return frozenset()
    except (ValueError, KeyError, TypeError, AttributeError):
        _log.warning("%s cannot be read; verify the store again", store / CACHE / NOTE)
        return frozenset()


def is_whole(root: Path, entry: FileEntry, suspect: Collection[str] = ()) -> bool:
    """Whether a file of the table in `root` is there and has its size; of one that is doubted, its checksum too."""
    try:
        size = (root / entry.path).stat().st_size
    except OSError:
        return False
    return size == entry.bytes and (entry.path not in suspect or is_sound(root, entry))


def is_sound(root: Path, entry: FileEntry) -> bool:
    """Whether a file of the table in `root` has the bytes that its entry says."""
    try:
        return hash_file(root / entry.path) == entry.sha256
    except OSError:
        return False


def list_files(shard: Shard) -> list[FileEntry]:
    """The files of a shard."""
    return [entry for entry in (shard.data, shard.index) if entry]


@dataclass(frozen=True)
class CorruptCommit:
    """A commit that cannot stay as it is.

    Args:
        manifest: Manifest. The commit.
        rest: Manifest. What is whole of it, made with the same, in its place.
        damaged: tuple of FileEntry. The files that are not whole.
    """

    manifest: Manifest
    rest: Manifest
    damaged: tuple[FileEntry, ...]

    @property
    def shards(self) -> list[Shard]:
        """The shards that are not in the rest."""
        kept = {shard.data.path for shard in self.rest.shards}
        return [shard for shard in self.manifest.shards if shard.data.path not in kept]


@dataclass(frozen=True)
class TableHealth:
    """What is left of a feature table.

    Args:
        manifests: tuple of Manifest. The live commits, oldest first, with only what is whole of them.
        wounds: tuple of Wound. The commits that cannot stay as they are.
        hiding: tuple of str. Digests of commits whose manifests cannot be read.
    """

    manifests: tuple[Manifest, ...]
    corrupt_commits: tuple[CorruptCommit, ...]
    hiding: tuple[str, ...]

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.corrupt_commits or self.hiding)

    def damaged(self) -> set[str]:
        """The files that are not whole, by path within the table."""
        return {entry.path for corrupt_commit in self.corrupt_commits for entry in corrupt_commit.damaged}


def diagnose(root: Path, noted: Collection[str]) -> TableHealth:
    """What is left of the feature table in a directory.

    Every file must be there in its size; the checksums of indexes, of what is no shard and of what is noted are taken.

    Args:
        root: Path. The table's directory.
        noted: collection of str. Paths within it that verification found damaged.

    Raises:
        CorruptFileError: the log cannot be read.
    """
    log_state = CommitLog(root).log_state()
    manifests, corrupt_commits, lying = [], [], _Lying.below(root)
    for manifest in log_state.live:
        corrupt_commit = _examine(lying, manifest, noted)
        if corrupt_commit.damaged or manifest.digest in log_state.doubtful:
            corrupt_commits.append(corrupt_commit)
        manifests.append(corrupt_commit.rest if corrupt_commit.damaged else manifest)
    return TableHealth(tuple(manifests), tuple(corrupt_commits), log_state.hiding)


@dataclass(frozen=True)
class _Lying:
    """The files of a table, those in a bucket as one listing tells of them.

    Args:
        root: Path. The table's directory.
        listed: dict or None. What the bucket says of each, by path within the table; None where there is no bucket.
    """

    root: Path
    listed: dict[str, Listed] | None

    @classmethod
    def below(cls, root: Path) -> "_Lying":
        if not isinstance(root, ObjectPath):
            return cls(root, None)
        return cls(root, {path.relative_to(root).as_posix(): listed for path, listed in root.listing()})

    def is_whole(self, entry: FileEntry, suspect: Collection[str]) -> bool:
        """As the function of that name."""
        path = self.root / entry.path
        if self.listed is None or not isinstance(path, ObjectPath):
            return is_whole(self.root, entry, suspect)
        listed = self.listed.get(entry.path)
        if listed is None or listed.size != entry.bytes:
            return False
        return entry.path not in suspect or local_cache().sha256_as_listed(path, listed) == entry.sha256


def _examine(lying: _Lying, manifest: Manifest, noted: Collection[str]) -> CorruptCommit:
    suspect = {*noted, *(entry.path for entry in (*_indexes(manifest), *manifest.files.values()))}
    damaged = tuple(entry for entry in manifest.entries() if not lying.is_whole(entry, suspect))
    bad = {entry.path for entry in damaged}
    rest = manifest.model_copy(
        update={
            "replaces": (manifest.digest,),
            "shards": tuple(
                shard for shard in manifest.shards if not bad & {entry.path for entry in list_files(shard)}
            ),
            "files": {role: entry for role, entry in manifest.files.items() if entry.path not in bad},
        }
    )
    return CorruptCommit(manifest, rest, damaged)


def _indexes(manifest: Manifest) -> list[FileEntry]:
    return [shard.index for shard in manifest.shards if shard.index]
