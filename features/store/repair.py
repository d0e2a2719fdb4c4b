"""Repairs tables: new commits remove corrupt files, and files that follow from intact ones are written again.

    log entries ← manifests      indexes ← shards      rows ← images, by the job that prepares them

Intact rows are never computed again. Corrupt files are deleted once no live commit references them. Rows whose images
the job does not read are reported as unrepaired.
"""

import contextlib
import hashlib
import logging
from collections.abc import Collection, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.io.atomic_files import hash_file, temporary_path, write
from features.store.caption_table import CaptionTable
from features.store.commit_log import LOG, MANIFEST_NAME, MANIFESTS, CommitLog, LogState, entry_bytes, list_paths
from features.store.corruption import (
    CorruptCommit,
    TableHealth,
    check_file,
    diagnose,
    has_valid_checksum,
    read_recorded_corruption,
)
from features.store.dataset import Dataset
from features.store.feature_table import FeatureTable
from features.store.held_leases import held_leases
from features.store.layout import DATASETS, table_root
from features.store.leases import lease_for_deletion, table_name
from features.store.merge import as_keys, find_keys
from features.store.shards import WRITERS, encode_index, find_shards, read_index, read_rows
from features.store.store import Store
from schemas.errors import CorruptFileError, StoreError
from schemas.manifests import DroppedMetadata, FeatureMetadata, Manifest, Shard
from schemas.records import stack_keys
from schemas.table_config import CaptionTableConfig, FeatureTableConfig

MAX_EXAMPLES = 20

_CATALOG_ROWS = 1 << 16

_log = logging.getLogger("capt.prepare")


# === Logs ===


def repair_log(root: Path) -> None:
    """Writes corrupt and missing log entries of a table again; the table may be missing.

    Raises:
        CorruptFileError: It is uncertain which manifest an entry referenced.
    """
    log = CommitLog(root)
    digests = dict.fromkeys(range(1, log.last() + 1), "")  # empty for an entry that cannot be read
    for number in digests:
        with contextlib.suppress(CorruptFileError):
            digests[number] = log.entry(number)
    suspect = [number for number, digest in digests.items() if not (root / MANIFESTS / f"{digest}.json").is_file()]
    for number in suspect:
        names = [path.stem for path in _list_manifests(root) if path.stem not in digests.values()]
        unreferenced = [name for name in names if hash_file(root / MANIFESTS / f"{name}.json") == name]
        digest = _find_manifest(log.entry_path(number), unreferenced, is_readable=bool(digests[number]))
        if digest:
            write(log.entry_path(number), entry_bytes(digest))
            digests[number] = digest
            _log.warning("%s: repaired the corrupt log entry.", log.entry_path(number))


def _find_manifest(path: Path, unreferenced: list[str], is_readable: bool) -> str:
    """Returns the manifest that a corrupt log entry referenced; empty if the entry is not corrupt."""
    data = path.read_bytes() if path.is_file() else b""
    # The entries of two manifests differ in nearly all digits of their digests.
    entries = {digest: entry_bytes(digest) for digest in unreferenced}
    similar = [
        digest
        for digest, entry in entries.items()
        if sum(one == other for one, other in zip(data, entry, strict=False)) > len(entry) // 2
    ]
    if is_readable and not similar:
        return ""
    candidates = similar or unreferenced
    if len(candidates) != 1:
        raise CorruptFileError(
            f"the log entry is corrupt or missing, and {len(candidates)} manifests may belong to it",
            location=str(path),
            hint=f'Write {{"manifest":"<name>"}} to this file, or move {path.parents[1]} away and prepare again.',
        )
    return candidates[0]


def _list_manifests(root: Path) -> list[Path]:
    return [path for path in sorted((root / MANIFESTS).glob("*.json")) if MANIFEST_NAME.fullmatch(path.name)]


# === Feature tables ===


class FeatureTableRepair:
    """Repairs a feature table around the job that prepares its rows.

    with FeatureTableRepair(store, table_config) as repair:   # repairs log entries and indexes
        table = repair.open_intact()
        ...                                                   # computes and commits the rows that `table` lacks
    repair.unrepaired                                         # corrupt commits are replaced, their files deleted
    """

    def __init__(self, store: Store, table_config: FeatureTableConfig) -> None:
        self._store = store
        self.table_config = table_config
        self.root = table_root(store.path, table_config)
        self.suspect = read_recorded_corruption(store.path, self.root)
        self.unrepaired: dict[str, Any] = {"unrepaired_rows": 0, "unrepaired_examples": []}
        self._health = TableHealth()

    def __enter__(self) -> Self:
        repair_log(self.root)
        for manifest in CommitLog(self.root).read_state().live:
            if isinstance(manifest.facts, FeatureMetadata):
                for shard in manifest.shards:
                    self._repair_index(shard, manifest.facts)
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error_type is not None:
            return
        suspect = self.suspect
        if not self._health.is_healthy:
            self._replace_corrupt()
            self.unrepaired = self._find_unrepaired()
            suspect |= {entry.path for one in self._health.corrupt_commits for entry in one.corrupt}
        remove_corrupt(self.root, suspect)

    def open_intact(self) -> FeatureTable | None:
        """Opens the intact part of the table without changing anything; None if no part is intact."""
        self._health = diagnose(self.root, self.suspect)
        if not self._health.is_healthy:
            rows = sum(shard.rows for corrupt_commit in self._health.corrupt_commits for shard in corrupt_commit.shards)
            _log.warning("%s: corrupt. Rows to compute again: %s.", self.root, "all" if self._health.blocking else rows)
        if not self._health.manifests:
            return None
        return FeatureTable(self.root, self.table_config, self._health.manifests)

    def _replace_corrupt(self) -> None:
        """Replaces corrupt commits by their intact rest, and removes those without one."""
        log, corrupt_commits = CommitLog(self.root), diagnose(self.root, self.suspect).corrupt_commits
        for corrupt_commit in corrupt_commits:
            if corrupt_commit.rest.entries():
                log.update(partial(_replace_by_rest, corrupt_commit))
        empty = [one.manifest.digest for one in corrupt_commits if not one.rest.entries()]

        def drop(log_state: LogState) -> Manifest | None:
            # The rest may be the commit whose manifest could not be read, so the log state is read again.
            replaces = (*log_state.blocking, *(digest for digest in empty if digest in log_state.live_digests))
            dropped = Manifest(table=self.table_config.fingerprint, replaces=replaces, facts=DroppedMetadata())
            return dropped if replaces else None

        log.update(drop)

    def _repair_index(self, shard: Shard, facts: FeatureMetadata) -> None:
        """Writes a corrupt index of an intact shard again, if its rows yield the same bytes."""
        if shard.index is None or has_valid_checksum(self.root, shard.index):
            return
        if not has_valid_checksum(self.root, shard.data):
            return
        data = self._encode_index(shard, facts)
        if hashlib.sha256(data).hexdigest() == shard.index.sha256:
            write(self.root / shard.index.path, data)
            _log.warning("%s: repaired the corrupt index.", self.root / shard.index.path)

    def _encode_index(self, shard: Shard, facts: FeatureMetadata) -> bytes:
        table, keys = self.table_config.table(facts.shape), []
        temporary = temporary_path(self.root / shard.data.path)
        try:
            writer = WRITERS[self.table_config.format](temporary, table)
            for row in read_rows(check_file(self.root, shard.data), table, self.table_config.format):
                writer.append(row)
                keys.append(row["key"])
            return encode_index(table, keys, writer.close())
        finally:
            temporary.unlink(missing_ok=True)

    # === Unrepaired rows ===

    def _find_unrepaired(self) -> dict[str, Any]:
        """Returns the number of rows that could not be computed again, and some of their images."""
        manifests = CommitLog(self.root).live()
        table = FeatureTable(self.root, self.table_config, manifests) if manifests else None
        images: dict[str, list[str]] = {}
        rows: set[bytes] = set()
        names = sorted(log.parent.name for log in (self._store.path / DATASETS).glob(f"*/{LOG}"))
        for dataset, catalog in ((one, batch) for one in names for batch in read_catalog(self._store, one) or ()):
            keys = stack_keys(catalog)
            is_missing = self._may_have_contained(keys)
            if table:
                is_missing &= table.lookup(keys) < 0
            if is_missing.any():
                images.setdefault(dataset, []).extend(catalog["image_id"].filter(pa.array(is_missing)).to_pylist())
                rows.update(key.tobytes() for key in keys[is_missing])
        if rows:
            datasets = ", ".join(f"{name} ({len(ids):,} images)" for name, ids in images.items())
            _log.warning(
                "%d rows are not repaired, because this command does not read their images: %s.", len(rows), datasets
            )
        pairs = ({"dataset": name, "image_id": one} for name, ids in images.items() for one in ids)
        return {"unrepaired_rows": len(rows), "unrepaired_examples": list(islice(pairs, MAX_EXAMPLES))}

    def _may_have_contained(self, keys: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Returns which of the keys uint8 [N, 32] had, or may have had, a row in a corrupt commit."""
        if self._health.blocking:
            return np.ones(len(keys), np.bool_)
        found = np.zeros(len(keys), np.bool_)
        for corrupt_commit in self._health.corrupt_commits:
            facts = corrupt_commit.manifest.facts
            assert isinstance(facts, FeatureMetadata)
            for shard in corrupt_commit.shards:
                if shard.index and has_valid_checksum(self.root, shard.index):
                    index = read_index(check_file(self.root, shard.index), self.table_config.table(facts.shape))
                    found |= find_keys(as_keys(index["key"]), as_keys(keys)) >= 0
                else:
                    found |= find_shards(keys, shard.count) == shard.number
        return found


def _replace_by_rest(corrupt_commit: CorruptCommit, log_state: LogState) -> Manifest | None:
    """Returns the intact rest of a commit, unless another job has already replaced the commit."""
    return corrupt_commit.rest if corrupt_commit.manifest.digest in log_state.live_digests else None


def remove_corrupt(root: Path, paths: Collection[str]) -> None:
    """Deletes those of `paths` that are corrupt and not live, and unreadable manifests that are superseded.

    It deletes nothing while another job may write to the table, because that job may be writing these files again.
    """
    if not _find_removable(root, paths):
        return
    store = root.parent.parent
    with lease_for_deletion(store, table_name(store, root), held_leases()) as held:
        if held:
            for path in _find_removable(root, paths):
                held.check()
                path.unlink(missing_ok=True)


def _find_removable(root: Path, paths: Collection[str]) -> list[Path]:
    log_state = CommitLog(root).read_state()
    if log_state.blocking or not (paths or log_state.unreadable):
        return []
    referenced = {entry.path: entry for manifest in log_state.known.values() for entry in manifest.entries()}
    candidates = [referenced[path] for path in set(paths) - list_paths(log_state.live) if path in referenced]
    existing = [entry for entry in candidates if (root / entry.path).is_file()]
    removable = [root / entry.path for entry in existing if not has_valid_checksum(root, entry)]
    suspect = {f"{MANIFESTS}/{digest}.json" for digest in log_state.unreadable} | set(paths)
    manifests = [path for path in _list_manifests(root) if f"{MANIFESTS}/{path.name}" in suspect]
    return [*removable, *(path for path in manifests if hash_file(path) != path.stem)]


# === Datasets and caption tables ===


def open_readable_dataset(root: Path) -> Dataset:
    """Opens a dataset. If its log cannot be read, it logs a warning and returns a dataset without commits."""
    try:
        return Dataset(root)
    except StoreError as error:
        _log.warning("%s The earlier commits of the dataset %s are ignored.", error, root.name)
        return Dataset(root, [])


def read_catalog(store: Store, name: str) -> Iterator[pa.RecordBatch] | None:
    """Returns a catalog's rows in batches; None if the catalog is missing or, with a warning, if it is corrupt."""
    try:
        dataset = Dataset(store.dataset_root(name))
        return dataset.record_batches(_CATALOG_ROWS) if dataset.has_images else None
    except StoreError as error:
        _log.warning("%s The catalog of the dataset %s is ignored.", error, name)
        return None


def open_intact_caption_table(store: Store, table_config: CaptionTableConfig) -> CaptionTable | None:
    """Opens and verifies the caption table of a config; None if it is missing or, with a warning, corrupt."""
    root = table_root(store.path, table_config)
    log_state = CommitLog(root).read_state()
    if log_state.blocking:
        _log.warning("%s The table is written again.", log_state.unreadable[log_state.blocking[0]])
        return None
    try:
        table = CaptionTable(root)
        for manifest in table.manifests:
            for entry in manifest.entries():
                table.file(entry)
    except CorruptFileError as error:
        _log.warning("%s The table is written again.", error)
        return None
    return table if table.manifests else None
