"""Healing: what is damaged is taken out of a table by new commits, and what follows from other files is written again.

log entries ← manifests · indexes ← shards · rows ← images, by the job that prepares them

Rows that are whole are never made again. Files that are damaged go once no live commit names them; what nobody could
make again is listed as lost.
"""

import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.io.atomic_files import hash_file, temporary_path, write
from features.store.commit_log import LOG, MANIFEST_NAME, MANIFESTS, CommitLog, LogState, entry_bytes
from features.store.corruption import CorruptCommit, TableHealth, diagnose, is_sound, recorded_corruption
from features.store.held_leases import held_leases
from features.store.layout import DATASETS, FEATURES, TEXT
from features.store.leases import collecting, table_name
from features.store.merge import as_keys, contains, shard_numbers
from features.store.random_access import checked
from features.store.shards import WRITERS, index_bytes, read_index, read_rows
from features.store.tables import CaptionTable, Dataset, FeatureTable, Store
from schemas.errors import CorruptFileError, StoreError
from schemas.manifests import DroppedMetadata, FeatureMetadata, Manifest, Shard
from schemas.records import content_keys
from schemas.table_config import SHORT_FINGERPRINT, CaptionTableConfig, FeatureTableConfig

LOST_EXAMPLES = 20

_CATALOG_ROWS = 1 << 16

_log = logging.getLogger("capt.prepare")


# === Logs ===


def repair_log(root: Path) -> None:
    """Write damaged or missing entries of a table's log again, where it is plain which manifests they named.

    Args:
        root: Path. The table's directory; it need not be there.

    Raises:
        CorruptFileError: it is not plain.
    """
    log = CommitLog(root)
    named = {number: _entry(log, number) for number in range(1, log.last() + 1)}
    suspect = [number for number, digest in named.items() if not (root / MANIFESTS / f"{digest}.json").is_file()]
    for number in suspect:
        unnamed = [digest for digest in _sound_manifests(root) if digest not in named.values()]
        digest = _meant(log.entry_path(number), unnamed, is_readable=bool(named[number]))
        if digest:
            write(log.entry_path(number), entry_bytes(digest))
            named[number] = digest
            _log.warning("%s: the log entry was damaged; it names its manifest again", log.entry_path(number))


def _entry(log: CommitLog, number: int) -> str:
    """The digest that an entry names; empty where it cannot be read."""
    try:
        return log.entry(number)
    except CorruptFileError:
        return ""


def _meant(path: Path, unnamed: list[str], is_readable: bool) -> str:
    """The manifest that the entry at `path` named before it was damaged; empty where the entry is as it was."""
    data = path.read_bytes() if path.is_file() else b""
    alike = [digest for digest in unnamed if _is_alike(data, entry_bytes(digest))]
    if is_readable and not alike:
        return ""
    candidates = alike or unnamed
    if len(candidates) != 1:
        raise CorruptFileError(
            f"the log entry is damaged or missing, and {len(candidates)} manifests may be the one that it named",
            location=str(path),
            hint=f'write {{"manifest":"<name>"}} there, or put {path.parents[1]} away and prepare again',
        )
    return candidates[0]


def _is_alike(data: bytes, entry: bytes) -> bool:
    """Whether most bytes agree; the entries of two manifests differ in nearly all of their digests."""
    return sum(one == other for one, other in zip(data, entry, strict=False)) > len(entry) // 2


def _sound_manifests(root: Path) -> Iterator[str]:
    for path in sorted((root / MANIFESTS).glob("*.json")):
        if MANIFEST_NAME.fullmatch(path.name) and hash_file(path) == path.stem:
            yield path.stem


# === Feature tables ===


@dataclass(frozen=True)
class UnrepairedRows:
    """Images whose rows are gone and could not be made again.

    Args:
        rows: int. How many rows.
        images: dict. By dataset, the ids of its images that lost theirs.
    """

    rows: int
    images: dict[str, list[str]]

    def figures(self) -> dict[str, Any]:
        """`lost`, how many rows, and `lost_examples`, a few of the images as `dataset, image_id`."""
        pairs = [{"dataset": name, "image_id": one} for name, some in self.images.items() for one in some]
        return {"lost": self.rows, "lost_examples": pairs[:LOST_EXAMPLES]}


class FeatureTableRepair:
    """The healing of one feature table, in step with the run that prepares its rows.

    begin → (the run makes the rows that `table` lacks, and commits them) → finish

    Args:
        store: Store. The store.
        table_config: FeatureTableConfig. The table's recipe.
    """

    def __init__(self, store: Store, table_config: FeatureTableConfig) -> None:
        self._store = store
        self.table_config = table_config
        self.root = store.path / FEATURES / table_config.fingerprint[:SHORT_FINGERPRINT]
        self.noted = recorded_corruption(store.path, self.root)
        self._found = TableHealth((), (), ())

    def begin(self) -> None:
        """Mend what follows from files that are whole: entries of the log, and indexes."""
        repair_log(self.root)
        for manifest in CommitLog(self.root).log_state().live:
            if isinstance(manifest.facts, FeatureMetadata):
                for shard in manifest.shards:
                    self._mend_index(shard, manifest.facts)

    def table(self) -> FeatureTable | None:
        """What is left of the table; None where that is nothing."""
        self._found = diagnose(self.root, self.noted)
        if not self._found.is_sound:
            rows = sum(shard.rows for corrupt_commit in self._found.corrupt_commits for shard in corrupt_commit.shards)
            _log.warning("%s: damaged; rows to make again: %s", self.root, "all" if self._found.hiding else rows)
        if not self._found.manifests:
            return None
        return FeatureTable(self._store, self.root, self.table_config, self._found.manifests)

    def finish(self) -> UnrepairedRows:
        """Put what is whole in the place of what is damaged; the rows that are gone."""
        if self._found.is_sound:
            remove_corrupt(self.root, self.noted)
            return UnrepairedRows(0, {})
        self._replace(diagnose(self.root, self.noted))
        lost = self._lost()
        remove_corrupt(self.root, self.noted | self._found.damaged())
        return lost

    def _replace(self, found: TableHealth) -> None:
        """Commits of what is whole in place of what is not, and one that takes out what leaves nothing."""
        log = CommitLog(self.root)
        for corrupt_commit in found.corrupt_commits:
            if corrupt_commit.rest.entries():
                log.update(partial(_rest_of, corrupt_commit))
        empty = [
            corrupt_commit.manifest.digest
            for corrupt_commit in found.corrupt_commits
            if not corrupt_commit.rest.entries()
        ]
        log.update(partial(self._taking_out, empty))

    def _taking_out(self, empty: list[str], log_state: LogState) -> Manifest | None:
        """A commit that takes out what cannot be read, and of `empty` what is live still."""
        # A rest may be the very commit that could not be read.
        gone = (*log_state.hiding, *(digest for digest in empty if digest in log_state.live_digests))
        return Manifest(table=self.table_config.fingerprint, replaces=gone, facts=DroppedMetadata()) if gone else None

    def _mend_index(self, shard: Shard, facts: FeatureMetadata) -> None:
        """Make a shard's index again from its rows, where that gives the very bytes."""
        if shard.index is None or is_sound(self.root, shard.index) or not is_sound(self.root, shard.data):
            return
        data = self._index_bytes(shard, facts)
        temporary = temporary_path(self.root / shard.index.path)
        temporary.write_bytes(data)
        is_the_same = hash_file(temporary) == shard.index.sha256
        temporary.unlink()
        if is_the_same:
            write(self.root / shard.index.path, data)
            _log.warning("%s: the index was damaged; made again", self.root / shard.index.path)

    def _index_bytes(self, shard: Shard, facts: FeatureMetadata) -> bytes:
        table, keys = self.table_config.table(facts.shape), []
        temporary = temporary_path(self.root / shard.data.path)
        try:
            writer = WRITERS[self.table_config.format](temporary, table)
            for row in read_rows(checked(self.root, shard.data), table, self.table_config.format):
                writer.append(row)
                keys.append(row["key"])
            return index_bytes(table, keys, writer.close())
        finally:
            temporary.unlink(missing_ok=True)

    # === What is lost ===

    def _lost(self) -> UnrepairedRows:
        manifests = CommitLog(self.root).live()
        table = FeatureTable(self._store, self.root, self.table_config, manifests) if manifests else None
        images: dict[str, list[str]] = {}
        rows: set[bytes] = set()
        for name, catalog in _catalogs(self._store):
            keys = content_keys(catalog)
            is_gone = self._was_here(keys)
            if table:
                is_gone &= table.lookup(keys) < 0
            if is_gone.any():
                images.setdefault(name, []).extend(catalog["image_id"].filter(pa.array(is_gone)).to_pylist())
                rows.update(key.tobytes() for key in keys[is_gone])
        if rows:
            location = ", ".join(f"{name} ({len(some):,} images)" for name, some in images.items())
            _log.warning("%d rows are lost, whose images this command does not see; dataset %s", len(rows), location)
        return UnrepairedRows(len(rows), images)

    def _was_here(self, keys: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which of the keys had, or may have had, a row in what was damaged."""
        if self._found.hiding:
            return np.ones(len(keys), np.bool_)
        found = np.zeros(len(keys), np.bool_)
        for corrupt_commit in self._found.corrupt_commits:
            facts = corrupt_commit.manifest.facts
            assert isinstance(facts, FeatureMetadata)
            for shard in corrupt_commit.shards:
                if shard.index and is_sound(self.root, shard.index):
                    index = read_index(checked(self.root, shard.index), self.table_config.table(facts.shape))
                    found |= contains(as_keys(index["key"]), as_keys(keys))
                else:
                    found |= shard_numbers(keys, shard.count) == shard.number
        return found


def _rest_of(corrupt_commit: CorruptCommit, log_state: LogState) -> Manifest | None:
    """What is whole of a commit, unless another commit has taken its place meanwhile."""
    return corrupt_commit.rest if corrupt_commit.manifest.digest in log_state.live_digests else None


def _catalogs(store: Store) -> Iterator[tuple[str, pa.RecordBatch]]:
    """The catalogs of a store's datasets that can be read: a name, and some of its rows."""
    for root in sorted((store.path / DATASETS).glob(f"*/{LOG}")):
        for rows in read_catalog(store, root.parent.name) or ():
            yield root.parent.name, rows


def remove_corrupt(root: Path, paths: Collection[str]) -> None:
    """Delete damaged files of a table that no live commit names, and manifests that cannot be read and count no more.

    While another job may write to the table they stay, for that job may be writing them again.

    Args:
        root: Path. The table's directory.
        paths: collection of str. Paths within it that may be damaged.
    """
    if not _damaged(root, paths):
        return
    store = root.parent.parent
    with collecting(store, table_name(store, root), held_leases()) as held:
        if held:
            for path in _damaged(root, paths):
                held.check()
                path.unlink(missing_ok=True)


def _damaged(root: Path, paths: Collection[str]) -> list[Path]:
    """The files that `remove_damaged` deletes."""
    log_state = CommitLog(root).log_state()
    if log_state.hiding or not (paths or log_state.unreadable):
        return []
    live = {entry.path for manifest in log_state.live for entry in manifest.entries()}
    named = {entry.path: entry for manifest in log_state.known.values() for entry in manifest.entries()}
    candidates = {path: root / path for path in set(paths) - live if path in named}
    found = [path for name, path in candidates.items() if path.is_file() and not is_sound(root, named[name])]
    suspect = {f"{MANIFESTS}/{digest}.json" for digest in log_state.unreadable} | set(paths)
    for file in (root / MANIFESTS).glob("*.json"):
        is_doubted = MANIFEST_NAME.fullmatch(file.name) and f"{MANIFESTS}/{file.name}" in suspect
        if is_doubted and hash_file(file) != file.stem:
            found.append(file)
    return found


# === Datasets and text tables ===


def readable_dataset(root: Path) -> Dataset:
    """The dataset in a directory; with a warning, one without a commit where its log cannot be read."""
    try:
        return Dataset(root)
    except StoreError as error:
        _log.warning("%s: goes on without what the dataset %s was", error, root.name)
        return Dataset(root, [])


def read_catalog(store: Store, name: str) -> Iterator[pa.RecordBatch] | None:
    """A dataset's catalog, many rows a batch; None, with a warning, where it is damaged, and where there is none."""
    try:
        dataset = Dataset(store.dataset_root(name))
        return dataset.record_batches(_CATALOG_ROWS) if dataset.is_catalogued else None
    except StoreError as error:
        _log.warning("%s: goes on without the catalog of %s", error, name)
        return None


def intact_caption_table(store: Store, table_config: CaptionTableConfig) -> CaptionTable | None:
    """The text table of a recipe, every file checked; None, with a warning, where one is damaged."""
    root = store.path / TEXT / table_config.fingerprint[:SHORT_FINGERPRINT]
    log_state = CommitLog(root).log_state()
    if log_state.hiding:
        _log.warning("%s: the table is written anew", log_state.unreadable[log_state.hiding[0]])
        return None
    try:
        table = CaptionTable(root)
        for manifest in table.manifests:
            for entry in manifest.entries():
                table.file(entry)
    except CorruptFileError as error:
        _log.warning("%s: the table is written anew", error)
        return None
    return table if table.manifests else None
