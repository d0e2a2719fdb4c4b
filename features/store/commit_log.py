"""The commit log of one table: numbered entries, each naming a manifest by digest.

    <table>/manifests/<sha256>.json   what a commit added, named by its own digest
    <table>/log/00000001.json         {"manifest": "<sha256>"}, put last and only where nothing is

A commit is visible once its log entry exists. Two writers that commit at once take two numbers; none is lost. Entries
and the manifests they name are the table's history and stay; what a replaced manifest names may be collected.

A manifest that cannot be read hides what it replaced. It is of no account where a later one replaces it and every
older commit is known to be replaced too; anywhere else the table is damaged.
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
from features.store.layout import NETWORKS
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
    """Which commits of a table count, as far as its log and manifests can be read.

    Args:
        live: tuple of Manifest. Those that no manifest replaces, oldest first, those left out that only take others
            out.
        known: dict. Every manifest that could be read, by digest, oldest first.
        unreadable: dict. Why a manifest cannot be read, by digest, oldest first.
        hiding: tuple of str. The digests among `unreadable` that may count, or may hide what they replaced.
        doubtful: frozenset of str. The digests among `live` that one of `hiding` may have replaced.
        entries: tuple of str. The digests of all commits, oldest first.
    """

    live: tuple[Manifest, ...]
    known: dict[str, Manifest]
    unreadable: dict[str, StoreError]
    blocking: tuple[str, ...]
    suspect: frozenset[str]
    entries: tuple[str, ...]

    @property
    def live_digests(self) -> frozenset[str]:
        """The digests of the live manifests."""
        return frozenset(manifest.digest for manifest in self.live)


class CommitLog:
    """Reads and extends the log of the table in `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def entries(self) -> list[str]:
        """The digests of all commits, oldest first; CorruptFileError where an entry is damaged or missing."""
        files = SmallFiles(self._root / LOG)
        paths = [self.entry_path(number) for number in range(1, _last(files.names()) + 1)]
        return [_entry(files.read(path.name), path) for path in paths]

    def entry(self, number: int) -> str:
        """The digest that one entry names; the first is 1."""
        path = self.entry_path(number)
        return _entry(_bytes(path), path)

    def last(self) -> int:
        """The number of the last entry; 0 where there is none."""
        return _last(path.name for path in (self._root / LOG).glob("*.json"))

    def entry_path(self, number: int) -> Path:
        """Where the entry of that number lies."""
        return self._root / LOG / f"{number:08d}.json"

    def live(self) -> list[Manifest]:
        """The manifests that no later one replaces, oldest first, those left out that only take others out."""
        return list(self._whole().live)

    def known(self) -> dict[str, Manifest]:
        """The manifests of all commits by digest, oldest first, but for those of no account that are gone."""
        return self.read_complete_state().known

    def read_complete_state(self) -> LogState:
        """As `standing`, of a table whose manifests can be read, but for those of no account that are gone."""
        log_state = self._whole()
        for digest, error in log_state.unreadable.items():
            if self._manifest_path(digest).exists():
                raise error
        return log_state

    def read_state(self) -> LogState:
        """Which commits count; CorruptFileError where the log itself cannot be read."""
        entries = self.entries()
        read = self._reader()
        known: dict[str, Manifest] = {}
        unreadable: dict[str, StoreError] = {}
        for digest in dict.fromkeys(entries):
            try:
                known[digest] = read(digest)
            except StoreError as error:
                if self._is_written(digest):
                    raise
                unreadable[digest] = error
        replaced = _replaced_by(known.values())
        blocking = find_blocking_manifests(entries, known)
        return LogState(
            live=tuple(
                manifest
                for digest, manifest in known.items()
                if digest not in replaced and not isinstance(manifest.facts, DroppedMetadata)
            ),
            known=known,
            unreadable=unreadable,
            blocking=blocking,
            suspect=frozenset(entries[: entries.index(blocking[-1])] if blocking else ()),
            entries=tuple(entries),
        )

    def manifest(self, digest: str) -> Manifest:
        """The manifest of that digest, checked against it."""
        path = self._manifest_path(digest)
        return _manifest(_bytes(path), path)

    def _reader(self) -> Callable[[str], Manifest]:
        """Reads many manifests as `manifest` reads one."""
        files = SmallFiles(self._root / MANIFESTS)
        return lambda digest: _manifest(files.read(f"{digest}.json"), self._manifest_path(digest))

    def append(self, manifest: Manifest) -> str:
        """Make a commit visible, whatever others have committed meanwhile; the digest it has in the log.

        A manifest that is live already is not added again. One that was replaced since comes back as a manifest that
        names the same files and replaces its former self.
        """
        while True:
            digest = self._put(manifest, self.entries())
            if digest:
                return digest

    def update(self, decide: Callable[[LogState], Manifest | None]) -> str | None:
        """Make the commit visible that follows from the log as it is: no other commit comes in between.

        Args:
            decide: Makes the commit from what the log says; called again if another writer was faster. None is no
                commit. It may raise.

        Returns:
            The digest that the commit has in the log; None if there is none.

        Raises:
            CorruptFileError: The log cannot be read.
        """
        while True:
            log_state = self.read_state()
            manifest = decide(log_state)
            if manifest is None:
                return None
            digest = self._put(manifest, list(log_state.entries))
            if digest:
                return digest

    def supersede(self, manifest: Manifest) -> str:
        """Make a commit the only one that counts, in place of all before it; the digest it has in the log.

        Where the only live one says the same, whatever it replaced in its time, it stays. Where the only one that
        counts cannot be read and this commit is that one, it is written again.

        Args:
            manifest: Manifest. It replaces nothing by itself.
        """
        digest = self.update(lambda log_state: superseding(manifest, log_state))
        assert digest is not None
        return digest

    def _put(self, manifest: Manifest, entries: list[str]) -> str | None:
        """Put a manifest as the entry after these; its digest in the log, None if another writer was faster."""
        digest = manifest.digest
        if digest in entries and digest in _replaced_by(self.read_state().known.values()):
            again = manifest.model_copy(update={"replaces": (*manifest.replaces, digest)})
            return self._put(again, entries)
        if not self._is_written(digest):
            write(self._manifest_path(digest), manifest.to_json())
        if digest in entries:
            return digest
        check_lease(self._root)
        self._sync_directories(manifest)
        return digest if put_if_absent(self.entry_path(len(entries) + 1), entry_bytes(digest)) else None

    def _sync_directories(self, manifest: Manifest) -> None:
        """Sync every directory of the store on the way to what a commit names.

        Its writer may have been killed between making a directory and syncing its entry, or on another machine.
        """
        store = self._root.parents[1]
        directories = {(self._root / entry.path).parent for entry in manifest.entries()}
        sync_directories({*directories, self._root / MANIFESTS, store / NETWORKS}, store)

    def _whole(self) -> LogState:
        log_state = self.read_state()
        if log_state.blocking:
            raise log_state.unreadable[log_state.blocking[0]]
        return log_state

    def _is_written(self, digest: str) -> bool:
        path = self._manifest_path(digest)
        return path.is_file() and hash_file(path) == digest

    def _manifest_path(self, digest: str) -> Path:
        return self._root / MANIFESTS / f"{digest}.json"


def superseding(manifest: Manifest, log_state: LogState) -> Manifest:
    """A manifest as the only commit that counts, in place of all that a log has; the live one if it says the same.

    Args:
        manifest: The manifest. It replaces nothing by itself.
        log_state: What the log says.
    """
    if not log_state.blocking and [one.model_copy(update={"replaces": ()}) for one in log_state.live] == [manifest]:
        return log_state.live[0]
    replaces = (*(one.digest for one in log_state.live), *log_state.blocking)
    return manifest if replaces == (manifest.digest,) else manifest.model_copy(update={"replaces": replaces})


def entry_bytes(digest: str) -> bytes:
    """The bytes of a log entry that names a manifest."""
    return canonical_json({"manifest": digest})


def find_blocking_manifests(entries: Sequence[str], known: Mapping[str, Manifest]) -> tuple[str, ...]:
    """The logged manifests, oldest first, that cannot be read and may count or hide what they replaced.

    Args:
        entries: sequence of str. The digests that the log names, oldest first.
        known: mapping. The manifests that can be read, by digest.
    """
    replaced = _replaced_by(known.values())
    blocking, is_older_settled = [], True
    for digest in dict.fromkeys(entries):
        is_settled = digest in replaced or (digest in known and isinstance(known[digest].facts, DroppedMetadata))
        if digest not in known and not (is_settled and is_older_settled):
            blocking.append(digest)
        is_older_settled = is_older_settled and is_settled
    return tuple(blocking)


def _replaced_by(manifests: Iterable[Manifest]) -> set[str]:
    return {digest for manifest in manifests for digest in manifest.replaces}


def _bytes(path: Path) -> bytes | None:
    """A file's bytes; None where it is not there."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _last(names: Iterable[str]) -> int:
    """The number of the last entry among files of a log."""
    return max((int(name[:8]) for name in names if ENTRY_NAME.fullmatch(name)), default=0)


def _entry(data: bytes | None, path: Path) -> str:
    """The digest that the entry at `path` names."""
    if data is None:
        raise CorruptFileError("an entry of the log is missing", location=str(path))
    try:
        digest = str(parse_json(data)["manifest"])
    except (ValueError, KeyError, TypeError):
        raise CorruptFileError("the log entry is damaged", location=str(path)) from None
    if not MANIFEST_NAME.fullmatch(f"{digest}.json") or entry_bytes(digest) != data:
        raise CorruptFileError("the log entry is damaged", location=str(path))
    return digest


def _manifest(data: bytes | None, path: Path) -> Manifest:
    """The manifest at `path`, checked against the digest that names it."""
    if data is None:
        raise CorruptFileError("the log names a manifest that is missing", location=str(path))
    manifest = _parse(data, path)
    if manifest.digest != path.stem or manifest.to_json() != data:
        raise CorruptFileError(
            f"manifest is damaged: expected SHA-256 {path.stem}, got {manifest.digest}", location=str(path)
        )
    return manifest


def _parse(data: bytes, path: Path) -> Manifest:
    try:
        version = parse_json(data).get("version")
    except (ValueError, AttributeError):
        raise CorruptFileError("manifest is damaged: not JSON", location=str(path)) from None
    if isinstance(version, int) and version > MANIFEST_VERSION:
        raise StoreError(
            f"manifest has version {version}, this capt reads up to {MANIFEST_VERSION}",
            location=str(path),
            hint="use a newer capt",
        )
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise CorruptFileError(f"manifest is damaged: {place}: {first['msg']}", location=str(path)) from None
