"""Reads and appends to the commit log of one table: numbered entries that reference manifests by digest.

    <table>/manifests/<sha256>.json   the manifest of a commit, under its own digest
    <table>/log/00000001.json         {"manifest": "<sha256>"}, written last, by put-if-absent

A commit is visible once its log entry exists. If two writers commit at the same time, each gets its own number. Entries
and referenced manifests are kept as the table's history; the files of a superseded manifest may be deleted.

The commits that an unreadable manifest replaces are unknown. Such a manifest is harmless if a later one replaces it and
every older commit is known to be superseded, too. Otherwise the table is corrupt.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from features.io.atomic_files import hash_file, put_if_absent, write
from features.io.file_trees import sync_directories
from features.io.small_files import SmallFiles
from features.store.held_leases import check_lease
from features.store.layout import FROZEN_EXTRACTORS
from schemas.errors import CorruptFileError, StoreError
from schemas.manifests import MANIFEST_VERSION, DroppedMetadata, Manifest
from schemas.strict_json import parse_json
from schemas.table_config import canonical_json

LOG = "log"
MANIFESTS = "manifests"
ENTRY_NAME = re.compile(r"\d{8}\.json")
MANIFEST_NAME = re.compile(r"[0-9a-f]{64}\.json")


@dataclass(frozen=True)
class LogState:
    """The live commits of a table, according to the readable part of its log and manifests; all oldest first.

    Args:
        live: The manifests that no other manifest replaces, without those that only drop others.
        known: Every readable manifest by digest.
        unreadable: The error of every unreadable manifest by digest.
        blocking: The digests in `unreadable` that may be live or may replace others.
        suspect: The digests in `live` that a blocking manifest may have replaced.
        entries: The digests of all commits.
    """

    live: tuple[Manifest, ...]
    known: dict[str, Manifest]
    unreadable: dict[str, StoreError]
    blocking: tuple[str, ...]
    suspect: frozenset[str]
    entries: tuple[str, ...]

    @property
    def live_digests(self) -> frozenset[str]:
        return frozenset(manifest.digest for manifest in self.live)

    def check_complete(self) -> None:
        """Raises the error of an unreadable manifest that may be live or may replace others."""
        for digest in self.blocking:
            raise self.unreadable[digest]


class CommitLog:
    """The commit log of the table in `root`. The table may be missing."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def entries(self) -> list[str]:
        """Returns the digests of all commits, oldest first; raises CorruptFileError if one is corrupt or missing."""
        # Only the maximum of a listing is used: a listing made during writes may lack an older entry.
        files = SmallFiles(self._root / LOG)
        paths = [self.entry_path(number) for number in range(1, _last_number(files.names()) + 1)]
        return [_parse_entry(files.read(path.name), path) for path in paths]

    def entry(self, number: int) -> str:
        """Returns the digest in one entry, from number 1; raises CorruptFileError if it is corrupt or missing."""
        path = self.entry_path(number)
        return _parse_entry(_read_bytes(path), path)

    def last(self) -> int:
        """Returns the number of the last entry; 0 if the log is empty."""
        return _last_number(path.name for path in (self._root / LOG).glob("*.json"))

    def entry_path(self, number: int) -> Path:
        return self._root / LOG / f"{number:08d}.json"

    def live(self) -> list[Manifest]:
        """Returns the live manifests, oldest first; raises CorruptFileError if they are uncertain."""
        log_state = self.read_state()
        log_state.check_complete()
        return list(log_state.live)

    def read_complete_state(self) -> LogState:
        """Returns the log state; raises CorruptFileError if the log or an existing manifest is corrupt."""
        log_state = self.read_state()
        log_state.check_complete()
        for digest, error in log_state.unreadable.items():
            if self._manifest_path(digest).exists():
                raise error
        return log_state

    def read_state(self) -> LogState:
        """Returns the log state, even if manifests cannot be read; raises CorruptFileError if the log is corrupt."""
        entries = self.entries()
        files = SmallFiles(self._root / MANIFESTS)
        known: dict[str, Manifest] = {}
        unreadable: dict[str, StoreError] = {}
        for digest in dict.fromkeys(entries):
            try:
                known[digest] = _parse_manifest(files.read(f"{digest}.json"), self._manifest_path(digest))
            except StoreError as error:
                if self._is_written(digest):
                    raise
                unreadable[digest] = error
        replaced = _replaced_by(known.values())
        blocking = find_blocking_manifests(entries, known)
        kept = (manifest for digest, manifest in known.items() if digest not in replaced)
        live = tuple(manifest for manifest in kept if not isinstance(manifest.facts, DroppedMetadata))
        suspect = frozenset(entries[: entries.index(blocking[-1])] if blocking else ())
        return LogState(live, known, unreadable, blocking, suspect, tuple(entries))

    def manifest(self, digest: str) -> Manifest:
        """Returns the manifest with this digest; raises CorruptFileError if it is missing or corrupt."""
        path = self._manifest_path(digest)
        return _parse_manifest(_read_bytes(path), path)

    def append(self, manifest: Manifest) -> str:
        """Makes a commit visible, regardless of concurrent commits, and returns its digest.

        A manifest that is already live is not added again. If it was superseded, the new commit has the same files and
        replaces the former one.
        """
        while not (digest := self._commit(manifest, self.entries())):
            continue
        return digest

    def update(self, build: Callable[[LogState], Manifest | None]) -> str | None:
        """Makes a commit visible that is built from the latest log state, without another commit in between.

        Args:
            build: Returns the manifest, or None for no commit. It is called again if another writer was faster.

        Returns:
            The digest of the commit; None without a commit.
        """
        while manifest := build(log_state := self.read_state()):
            if digest := self._commit(manifest, list(log_state.entries)):
                return digest
        return None

    def supersede(self, manifest: Manifest) -> str:
        """Makes a manifest with empty `replaces` the only live commit, and returns the digest of the commit.

        If the only live manifest is equal except for what it replaces, it stays. If the only blocking manifest is this
        one, it is written again.
        """
        digest = self.update(lambda log_state: build_superseding_manifest(manifest, log_state))
        assert digest is not None
        return digest

    def _commit(self, manifest: Manifest, entries: list[str]) -> str | None:
        """Writes a manifest and its log entry after `entries`; returns None if another writer was faster."""
        digest = manifest.digest
        if digest in entries and digest in _replaced_by(self.read_state().known.values()):
            again = manifest.model_copy(update={"replaces": (*manifest.replaces, digest)})
            return self._commit(again, entries)
        if not self._is_written(digest):
            write(self._manifest_path(digest), manifest.to_json())
        if digest in entries:
            return digest
        check_lease(self._root)
        # The writer of a directory may have been killed before it synced the parent, or may run on another machine.
        store = self._root.parents[1]
        directories = {(self._root / entry.path).parent for entry in manifest.entries()}
        sync_directories({*directories, self._root / MANIFESTS, store / FROZEN_EXTRACTORS}, store)
        return digest if put_if_absent(self.entry_path(len(entries) + 1), entry_bytes(digest)) else None

    def _is_written(self, digest: str) -> bool:
        path = self._manifest_path(digest)
        return path.is_file() and hash_file(path) == digest

    def _manifest_path(self, digest: str) -> Path:
        return self._root / MANIFESTS / f"{digest}.json"


def build_superseding_manifest(manifest: Manifest, log_state: LogState) -> Manifest:
    """Adds all live and blocking manifests to the empty `replaces` of one; returns the live one if it is equal."""
    if not log_state.blocking and [one.model_copy(update={"replaces": ()}) for one in log_state.live] == [manifest]:
        return log_state.live[0]
    replaces = (*(one.digest for one in log_state.live), *log_state.blocking)
    return manifest if replaces == (manifest.digest,) else manifest.model_copy(update={"replaces": replaces})


def entry_bytes(digest: str) -> bytes:
    return canonical_json({"manifest": digest})


def find_blocking_manifests(entries: Sequence[str], known: Mapping[str, Manifest]) -> tuple[str, ...]:
    """Returns the log entries that are not `known`, oldest first, and may be live or may replace others."""
    replaced = _replaced_by(known.values())
    blocking, are_older_superseded = [], True
    for digest in dict.fromkeys(entries):
        is_superseded = digest in replaced or (digest in known and isinstance(known[digest].facts, DroppedMetadata))
        if digest not in known and not (is_superseded and are_older_superseded):
            blocking.append(digest)
        are_older_superseded = are_older_superseded and is_superseded
    return tuple(blocking)


def list_paths(manifests: Iterable[Manifest]) -> set[str]:
    """Returns the paths within a table that some of its manifests reference."""
    return {entry.path for manifest in manifests for entry in manifest.entries()}


def _replaced_by(manifests: Iterable[Manifest]) -> set[str]:
    return {digest for manifest in manifests for digest in manifest.replaces}


def _read_bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _last_number(names: Iterable[str]) -> int:
    return max((int(name[:8]) for name in names if ENTRY_NAME.fullmatch(name)), default=0)


def _parse_entry(data: bytes | None, path: Path) -> str:
    if data is None:
        raise CorruptFileError("the log entry is missing", location=str(path))
    try:
        digest = str(parse_json(data)["manifest"])
    except (ValueError, KeyError, TypeError):
        digest = ""
    if not MANIFEST_NAME.fullmatch(f"{digest}.json") or entry_bytes(digest) != data:
        raise CorruptFileError("the log entry is corrupt", location=str(path))
    return digest


def _parse_manifest(data: bytes | None, path: Path) -> Manifest:
    """Returns the manifest in a file whose name is the manifest's digest."""
    if data is None:
        raise CorruptFileError("the manifest is missing", location=str(path))
    try:
        version = parse_json(data).get("version")
    except (ValueError, AttributeError):
        raise CorruptFileError("the manifest is corrupt: not JSON", location=str(path)) from None
    if isinstance(version, int) and version > MANIFEST_VERSION:
        message = f"the manifest has version {version}; this version of capt supports up to {MANIFEST_VERSION}"
        raise StoreError(message, location=str(path), hint="Use a newer version of capt.")
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        message = f"the manifest is corrupt: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise CorruptFileError(message, location=str(path)) from None
    if manifest.digest != path.stem or manifest.to_json() != data:
        message = f"the manifest is corrupt: expected SHA-256 {path.stem}, got {manifest.digest}"
        raise CorruptFileError(message, location=str(path))
    return manifest
