"""Merges the live commits of a feature table into one commit with the bytes that a single run would have written.

    survey (rows that stay, number of shards) → copy rows by key to new shards → a commit that replaces the merged ones

Rows are copied and never extracted again. Rows that no live dataset references are dropped, unless a job prepares
features for the table. Commits with different metadata (extractor, numerics class, toolchain) stay separate, because
the metadata of a row is that of its commit. Garbage collection deletes the files of merged commits later.
"""

import contextlib
import hashlib
import logging
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.io.atomic_files import (
    describe_file,
    fsync,
    hash_file,
    make_directory,
    put_if_absent,
    replace_atomically,
    temporary_path,
    working_path,
)
from features.io.file_trees import remove_tree
from features.store.commit_log import CommitLog, LogState
from features.store.corruption import is_intact
from features.store.feature_table import FeatureTable
from features.store.layout import WORK, compaction_plan
from features.store.leases import is_busy, lease, lease_for_deletion, table_name
from features.store.merge import MergedRows, ReferencedKeys, ShardMerge, as_bytes, find_keys
from features.store.random_access import OpenShards
from features.store.shards import (
    ShardWriter,
    TFRecordWriter,
    check_disk_space,
    check_num_shards,
    choose_shard_count,
    compute_commit_name,
    find_shard,
    record_end,
    tensor_fields,
    value_span,
)
from features.store.store import Store, open_store
from schemas.manifests import FeatureMetadata, FileEntry, Manifest, Shard
from schemas.options.store import StoreCompact
from schemas.records import Row
from schemas.table_config import IMPORTED, SHORT_FINGERPRINT
from schemas.tables import CATALOG, FAILURES
from schemas.terminal.progress import show_progress

_FAILURES_PER_GROUP = 10_000
_MAX_OPEN = 64  # shards; many systems allow a process 256 open files

_log = logging.getLogger("capt.store")


@dataclass(frozen=True)
class CompactionSummary:
    """The result of the compaction of one table; see `compact_store`."""

    merged: int
    rows: int
    dropped: int
    repeated: int
    shards: int
    bytes: int


def compact_store(options: StoreCompact) -> dict[str, Any]:
    """Merges the commits of a store's feature tables.

    Returns:
        `tables`, the number of tables; over all tables, `merged`, the number of merged commits; `rows`; `dropped`, the
        number of dropped rows that no dataset references; `repeated`, the number of dropped rows that an older commit
        contains, too; `shards`, the number of written shards; `bytes`, their size without indexes; and `seconds`.

    Raises:
        UsageError: The number of shards is not a power of two.
        CorruptFileError: A shard or index to be copied is corrupt.
        CaptError: The disk has too little free space.
    """
    started = time.monotonic()
    check_num_shards(options.num_shards)
    store = open_store(options.store)
    tables = [store.feature_table(options.feature_table)] if options.feature_table else store.feature_tables()
    summaries = [asdict(compact_table(store, table.fingerprint, options.num_shards)) for table in tables]
    sums = {one.name: sum(summary[one.name] for summary in summaries) for one in fields(CompactionSummary)}
    return {"tables": len(summaries), **sums, "seconds": round(time.monotonic() - started, 3)}


def compact_table(store: Store, fingerprint: str, shards: int | None = None) -> CompactionSummary:
    """Merges the commits of one table. Commits that are made during the compaction stay live beside the merged one.

    Args:
        store: The store.
        fingerprint: The table's fingerprint or its beginning.
        shards: Number of shards, a power of two; None for a number that fits.
    """
    name = table_name(store.path, store.feature_table(fingerprint).root)
    drops = True
    with lease(store.path, "compact", {name: ()}):
        while True:
            compaction = _Compaction(store, store.feature_table(fingerprint), shards, drops)
            summary = compaction.run()
            if summary:
                return summary
            drops = not compaction.needs_dropped_rows
            reason = "another compaction was faster" if drops else "dropped rows were referenced meanwhile"
            _log.info("%s: %s. The compaction starts again.", name, reason)


@dataclass(eq=False)
class _Group:
    """The commits with the same metadata, oldest first, and the number and the hash of the keys that stay."""

    facts: FeatureMetadata
    manifests: list[Manifest] = field(default_factory=list)
    rows: int = 0
    keys: Any = field(default_factory=hashlib.sha256)

    def is_compact(self, count: int) -> bool:
        """Returns whether there is nothing to merge, to drop or to divide into another number of shards."""
        shards = [shard for manifest in self.manifests for shard in manifest.shards]
        keeps_all = sum(shard.rows for shard in shards) == self.rows
        return len(self.manifests) == 1 and keeps_all and all(shard.count == count for shard in shards)


class _Compaction:
    """One attempt to compact one table, in its state at the start. `drops`: whether to drop unreferenced rows."""

    def __init__(self, store: Store, table: FeatureTable, shards: int | None, drops: bool) -> None:
        self._store = store
        self._table = table
        self._shard_count = shards
        self._name = table_name(store.path, table.root)
        self._scratch = working_path(store.path / WORK / f"compact-{uuid.uuid4().hex}")
        self._merge = ShardMerge(table.root, table.shards, table.table)
        self._groups = _group_by_metadata(table)
        # The group of each shard, int64 [shards]; the first one if several reference the shard.
        numbers = {
            shard.data.path: number
            for number, group in reversed(list(enumerate(self._groups)))
            for manifest in group.manifests
            for shard in manifest.shards
        }
        self._group_of_shard = np.array([numbers[shard.data.path] for shard in table.shards], np.int64)
        self._dataset_commits = self._read_dataset_commits()
        self._referenced: ReferencedKeys | None = None
        self._copied = 0
        self._drops = drops
        self.needs_dropped_rows = False

    def run(self) -> CompactionSummary | None:
        """Compacts the table; returns None if another job has replaced its commits, or references dropped rows."""
        try:
            if self._drops and not is_busy(self._store.path, self._name, "prepare"):
                self._referenced = self._collect_keys("referenced")
            return self._replace(repeated=self._survey())
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _replace(self, repeated: int) -> CompactionSummary | None:
        rows = sum(group.rows for group in self._groups)
        dropped = sum(shard.rows for shard in self._merge.shards) - repeated - rows
        row_bytes = sum(field.nbytes for field in self._table.table.fields)
        count = self._shard_count or choose_shard_count(rows, row_bytes)
        groups = [group for group in self._groups if not group.is_compact(count)]
        copied, hint = sum(group.rows for group in groups), "Free space, for example with `capt store gc`."
        check_disk_space(self._table.root, copied * row_bytes, "compaction", hint)
        with show_progress("compacting", copied, "rows", lambda: (self._copied, "")):
            written = [self._write(group, count) for group in groups]
        # A lease keeps jobs from referencing a dropped row.
        with lease_for_deletion(self._store.path, self._name) if dropped else contextlib.nullcontext():
            self.needs_dropped_rows = bool(dropped) and self._are_dropped_rows_needed()
            if self.needs_dropped_rows or not self._commit(written):
                return None
        shards = [shard for manifest in written for shard in manifest.shards]
        merged = sum(len(group.manifests) for group in groups)
        size = sum(shard.data.bytes for shard in shards)
        return CompactionSummary(merged, rows, dropped, repeated, len(shards), size)

    # === Rows that stay ===

    def _survey(self) -> int:
        """Counts and hashes the rows of each group that stay; returns the number of repeated rows."""
        repeated = 0
        for number in range(self._merge.ranges):
            kept = self._kept(number)
            repeated += kept.repeated
            for group in self._groups:
                keys = self._select(kept, group).keys
                group.keys.update(as_bytes(keys).tobytes())
                group.rows += len(keys)
        return repeated

    def _kept(self, number: int) -> MergedRows:
        """Returns the rows of a key range that stay."""
        rows = self._merge.range(number)
        return rows.select(find_keys(self._referenced.range(number), rows.keys) >= 0) if self._referenced else rows

    def _select(self, rows: MergedRows, group: _Group) -> MergedRows:
        return rows.select(self._group_of_shard[rows.shards] == self._groups.index(group))

    def _collect_keys(self, name: str) -> ReferencedKeys:
        """Collects the keys that live datasets reference."""
        catalogs = (dataset.file(dataset.manifest.files[CATALOG.name]) for dataset in self._store.datasets())
        return ReferencedKeys(self._scratch / name, self._merge.ranges, catalogs)

    def _read_dataset_commits(self) -> dict[str, list[str]]:
        return {one.name: [manifest.digest for manifest in one.manifests] for one in self._store.datasets()}

    def _are_dropped_rows_needed(self) -> bool:
        """Returns whether a job or a dataset has begun to reference a dropped row since the start."""
        if is_busy(self._store.path, self._name, "prepare"):
            return True
        if self._referenced is None or self._read_dataset_commits() == self._dataset_commits:
            return False
        now = self._collect_keys("now")
        for number in range(self._merge.ranges):
            keys = self._merge.range(number).keys
            dropped = keys[find_keys(self._referenced.range(number), keys) < 0]
            if (find_keys(now.range(number), dropped) >= 0).any():
                return True
        return False

    # === Writing ===

    def _write(self, group: _Group, count: int) -> Manifest:
        """Writes the shards of a group durably, and returns the manifest that references them."""
        extractor = group.facts.network or IMPORTED
        commit = compute_commit_name(self._table.fingerprint, extractor, count, group.keys.hexdigest())
        rows = (row for number in range(self._merge.ranges) for row in self._select(self._kept(number), group))
        copier = RowCopier(self._table)
        shards = tuple(
            self._write_shard(copier, commit, number, count, shard_rows)
            for number, shard_rows in groupby(rows, lambda row: find_shard(row[0], count))
        )
        files = self._merge_failures(group)
        fsync(self._table.root)
        name, replaces = self._table.fingerprint, tuple(manifest.digest for manifest in group.manifests)
        return Manifest(table=name, replaces=replaces, shards=shards, files=files, facts=group.facts)

    def _write_shard(
        self, copier: "RowCopier", commit: str, number: int, count: int, rows: Iterator[tuple[bytes, int, int]]
    ) -> Shard:
        """Writes one shard, unless a killed compaction has written it."""
        root, table, file_format = self._table.root, self._table.table, self._table.table_config.format
        record = self._plan(commit) / f"{number:05d}.json"
        if record.exists():
            copied = Shard.model_validate_json(record.read_bytes())
            if all(is_intact(root, entry) for entry in copied.entries()):
                self._copied += copied.rows
                return copied
        writer = ShardWriter(root, commit, table, file_format, number, count, copier.make_writer)
        try:
            for row in rows:
                writer.append(copier.read(*row))
                self._copied += 1
            written = writer.close()
        finally:
            writer.abandon()
        assert written is not None
        put_if_absent(record, written.model_dump_json().encode())
        return written

    def _merge_failures(self, group: _Group) -> dict[str, FileEntry]:
        """Writes the recorded failures of the commits to one file; for each image, the latest one."""
        schema = FAILURES.arrow_schema()
        entries = [manifest.files["failures"] for manifest in group.manifests if "failures" in manifest.files]
        if not entries:
            return {}
        tables = [pq.read_table(self._table.file(entry), schema=schema) for entry in entries]
        latest = {row["key"]: row for table in tables for row in table.to_pylist()}
        merged = pa.Table.from_pylist([latest[key] for key in sorted(latest)], schema=schema)
        root = self._table.root
        temporary = temporary_path(root / "failures")
        try:
            with pq.ParquetWriter(temporary, schema) as writer:
                for start in range(0, len(merged), _FAILURES_PER_GROUP):
                    writer.write_table(merged.slice(start, _FAILURES_PER_GROUP))
            path = root / hash_file(temporary)[:SHORT_FINGERPRINT] / "failures.parquet"
            make_directory(path.parent)
            replace_atomically(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        return {"failures": describe_file(path, root)}

    def _plan(self, commit: str) -> Path:
        return compaction_plan(self._store.path, self._table.root.name, commit)

    def _commit(self, written: list[Manifest]) -> bool:
        """Commits the manifests whose replaced commits are all live; returns whether these are all manifests."""
        log = CommitLog(self._table.root)
        committed = [log.update(partial(_check_replaced, manifest)) for manifest in written]
        for manifest in written:
            for commit in {shard.data.path.partition("/")[0] for shard in manifest.shards}:
                remove_tree(self._plan(commit))
        return all(committed)


class RowCopier:
    """Reads rows of a table in the form that `make_writer` (None: the format's own writer) accepts, without parsing.

    Of a TFRecord file, that is a whole record with its framing; of a Parquet file, the stored bytes of the tensors.
    """

    def __init__(self, table: FeatureTable) -> None:
        self._table = table.table
        self._shards = OpenShards(table.root, table.shards, table.table, _MAX_OPEN)
        self.make_writer = _RecordWriter if table.table_config.format == "tfrecord" else None

    def read(self, key: bytes, shard: int, row: int) -> Row:
        """Reads the record of a row with its start and index entry, or the bytes of its tensors by column."""
        index = self._shards.index(shard)
        if self.make_writer:
            start = record_end(index[row - 1], self._table) if row else 0
            record = self._shards.read_bytes(shard, start, record_end(index[row], self._table) - start)
            return {"key": key, "record": record, "start": start, "entry": index[row]}
        spans = {field.name: map(int, value_span(index[row], field)) for field in tensor_fields(self._table)}
        return {"key": key, **{name: self._shards.read_bytes(shard, *span) for name, span in spans.items()}}


class _RecordWriter(TFRecordWriter):
    """Writes copied records, and moves the offsets of their index entries."""

    def append(self, row: Row) -> None:
        moved, entry = self._file.tell() - row["start"], row["entry"]
        self._file.write(row["record"])
        names = [field.name for field in tensor_fields(self._table)]
        self._offsets.append([int(entry[one]) + (moved if one in names else 0) for one in entry.dtype.names[1:]])


def _check_replaced(manifest: Manifest, log_state: LogState) -> Manifest | None:
    """Returns the manifest if it or all that it replaces is live."""
    is_valid = manifest.digest in log_state.live_digests or set(manifest.replaces) <= log_state.live_digests
    return manifest if is_valid else None


def _group_by_metadata(table: FeatureTable) -> list[_Group]:
    """Groups the table's commits by their metadata, oldest first."""
    groups: list[_Group] = []
    for manifest in table.manifests:
        facts = manifest.facts
        assert isinstance(facts, FeatureMetadata)
        group = next((group for group in groups if group.facts == facts), None)
        if group is None:
            groups.append(group := _Group(facts))
        group.manifests.append(manifest)
    return groups
