"""Compaction: the live commits of a feature table merged into one, byte for byte what a single run would have written.

survey (what stays, in how many shards) → copy rows by key into new shards → a commit in place of those merged

Rows are copied and never extracted. Those that no live dataset names are left out, unless a job that prepares features
is at work on the table. Commits of different makings (network, numerics class, toolchain) stay apart, since what is
known of a row is known of its commit. What was merged stays on the disk for its readers until garbage collection.
"""

import contextlib
import hashlib
import logging
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
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
    measure_free_space,
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
from features.store.merge import MergedRows, ReferencedKeys, ShardMerge, as_bytes, contains
from features.store.row_copy import Copier, open_copier
from features.store.shards import MAX_SHARDS, ShardWriter, choose_shard_count, compute_commit_name, find_shard
from features.store.store import Store, open_store
from schemas.errors import CaptError, UsageError
from schemas.manifests import FeatureMetadata, FileEntry, Manifest, Shard
from schemas.options.store import StoreCompact
from schemas.table_config import SHORT_FINGERPRINT
from schemas.tables import FAILURES
from schemas.terminal.progress import show_progress

_SPARE = 1.05
_FAILURES_A_WRITE = 10_000

_log = logging.getLogger("capt.store")


@dataclass(frozen=True)
class CompactionSummary:
    """What a compaction did to one table.

    Args:
        merged: int. Commits that were merged; 0 where the table was compact already.
        rows: int. MergedRows in the table.
        dropped: int. MergedRows left out because no dataset names them.
        repeated: int. MergedRows left out because an older commit has them too.
        shards: int. Shards written.
        bytes: int. Their size, indexes left out.
    """

    merged: int
    rows: int
    dropped: int
    repeated: int
    shards: int
    bytes: int


def compact_store(options: StoreCompact) -> dict[str, Any]:
    """Merge the commits of a store's feature tables.

    Args:
        options: The store, which tables, and their number of shards.

    Returns:
        `tables`, how many there were, the sums over them of the fields of `Compacted`, and `seconds`.

    Raises:
        CorruptFileError: a shard or index that is to be copied is damaged.
        CaptError: the disk is too full.
    """
    started = time.monotonic()
    _check_count(options.num_shards)
    opened = open_store(options.store)
    tables = [opened.feature_table(options.feature_table)] if options.feature_table else opened.feature_tables()
    done = [asdict(compact_table(opened, chosen.fingerprint, options.num_shards)) for chosen in tables]
    sums = {field.name: sum(one[field.name] for one in done) for field in fields(CompactionSummary)}
    return {"tables": len(done), **sums, "seconds": round(time.monotonic() - started, 3)}


def compact_table(store: Store, fingerprint: str, shards: int | None = None) -> CompactionSummary:
    """Merge the commits of one table; those made meanwhile stay beside what was merged.

    Args:
        store: Store. The store.
        fingerprint: str. How the table's fingerprint begins.
        shards: int or None. Pins the shard count, a power of two.
    """
    name = table_name(store.path, store.feature_table(fingerprint).root)
    drops = True
    with lease(store.path, "compact", {name: ()}):
        while True:
            compaction = _Compaction(store, store.feature_table(fingerprint), shards, drops)
            done = compaction.run()
            if done:
                return done
            drops = not compaction.is_missed
            message = "another compaction was faster" if drops else "rows left out came to be wanted meanwhile"
            _log.info("%s: %s; looking again", name, message)


@dataclass(frozen=True)
class _Group:
    """The commits of one making, and the rows of theirs that stay: how many, and SHA-256 of their keys in order."""

    number: int
    facts: FeatureMetadata
    manifests: tuple[Manifest, ...]
    rows: int
    keys: str

    def is_compact(self, count: int) -> bool:
        """Whether there is nothing to merge, to leave out or to divide anew."""
        shards = [shard for manifest in self.manifests for shard in manifest.shards]
        whole = sum(shard.rows for shard in shards) == self.rows
        return len(self.manifests) == 1 and whole and all(shard.count == count for shard in shards)


class _Compaction:
    """One attempt at one table, as it is at the start.

    Args:
        store: The store.
        table: The table.
        shards: The shard count; None takes what fits.
        drops: Whether rows that no dataset names are left out.
    """

    def __init__(self, store: Store, table: FeatureTable, shards: int | None, drops: bool) -> None:
        self._store = store
        self._table = table
        self._pinned_count = shards
        self._name = table_name(store.path, table.root)
        self._scratch = working_path(store.path / WORK / f"compact-{uuid.uuid4().hex}")
        self._merge = ShardMerge(table.root, table.shards, table.table)
        self._makings = _makings(table)
        self._making_of_shard = _making_of_shard(self._makings, self._merge.shards)
        self._commits = _dataset_commits(store)
        self._named: ReferencedKeys | None = None
        self._copied = 0
        self._drops = drops
        self.is_missed = False

    def run(self) -> CompactionSummary | None:
        """Do it; None where the commits to merge were replaced, or rows left out came to be wanted, meanwhile."""
        try:
            if self._drops and not is_busy(self._store.path, self._name, "prepare"):
                self._named = self._gather("named")
            groups, repeated = self._survey()
            return self._replace(groups, repeated)
        finally:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _replace(self, groups: list[_Group], repeated: int) -> CompactionSummary | None:
        rows = sum(group.rows for group in groups)
        dropped = sum(shard.rows for shard in self._merge.shards) - repeated - rows
        count = self._pinned_count or choose_shard_count(rows, self._row_bytes)
        waiting = [group for group in groups if not group.is_compact(count)]
        merged = [manifest for group in waiting for manifest in group.manifests]
        written = self._write_all(waiting, count)
        if not (self._commit_dropping(written) if dropped else self._commit(written)):
            return None
        shards = [shard for manifest in written for shard in manifest.shards]
        size = sum(shard.data.bytes for shard in shards)
        return CompactionSummary(len(merged), rows, dropped, repeated, len(shards), size)

    # === What stays ===

    def _survey(self) -> tuple[list[_Group], int]:
        """The commits by making with the rows that stay, and how many rows an older commit has too."""
        digests, counts, repeated = [hashlib.sha256() for _ in self._makings], [0] * len(self._makings), 0
        for number in range(self._merge.ranges):
            rows = self._kept(number)
            repeated += rows.repeated
            for making, digest in enumerate(digests):
                mine = self._made(rows, making)
                digest.update(as_bytes(mine.keys).tobytes())
                counts[making] += len(mine.keys)
        groups = [
            _Group(making, facts, tuple(manifests), counts[making], digests[making].hexdigest())
            for making, (facts, manifests) in enumerate(self._makings)
        ]
        return groups, repeated

    def _kept(self, number: int) -> MergedRows:
        """The rows of a key range that some dataset names."""
        rows = self._merge.range(number)
        return rows.select(contains(self._named.range(number), rows.keys)) if self._named else rows

    def _made(self, rows: MergedRows, making: int) -> MergedRows:
        return rows.select(self._making_of_shard[rows.shards] == making)

    def _gather(self, name: str) -> ReferencedKeys:
        catalogs = (dataset.file(dataset.manifest.files["catalog"]) for dataset in self._store.datasets())
        return ReferencedKeys(self._scratch / name, self._merge.ranges, catalogs)

    def _is_missed(self) -> bool:
        """Whether, since the start, a job or a dataset has come to count on a row that was left out."""
        if is_busy(self._store.path, self._name, "prepare"):
            return True
        if self._named is None or _dataset_commits(self._store) == self._commits:
            return False
        now = self._gather("now")
        for number in range(self._merge.ranges):
            keys = self._merge.range(number).keys
            left_out = keys[~contains(self._named.range(number), keys)]
            if contains(now.range(number), left_out).any():
                return True
        return False

    # === Writing ===

    def _write_all(self, groups: list[_Group], count: int) -> list[Manifest]:
        rows = sum(group.rows for group in groups)
        self._check_disk(rows)
        with show_progress("compacting", rows, "rows", lambda: (self._copied, "")):
            return [self._write(group, count) for group in groups]

    def _write(self, group: _Group, count: int) -> Manifest:
        """The shards of one making, durable, and the manifest that is to name them."""
        commit = compute_commit_name(self._table.fingerprint, group.facts.network, count, group.keys)
        parts = (self._made(self._kept(number), group.number) for number in range(self._merge.ranges))
        rows = (row for part in parts for row in part)
        shards = []
        with contextlib.closing(open_copier(self._merge, self._table.table, self._table.table_config.format)) as copier:
            for number, some in groupby(rows, lambda row: find_shard(row[0], count)):
                shards.append(self._shard(copier, commit, number, count, some))
        files = self._failures(group)
        fsync(self._table.root)
        return Manifest(
            table=self._table.fingerprint,
            replaces=tuple(manifest.digest for manifest in group.manifests),
            shards=tuple(shards),
            files=files,
            facts=group.facts,
        )

    def _shard(
        self, copier: Copier, commit: str, number: int, count: int, rows: Iterator[tuple[bytes, int, int]]
    ) -> Shard:
        """One shard, copied unless a killed compaction has."""
        root, table, file_format = self._table.root, self._table.table, self._table.table_config.format
        done = self._plan(commit) / f"{number:05d}.json"
        if done.exists():
            copied = Shard.model_validate_json(done.read_bytes())
            if all(is_intact(root, entry) for entry in copied.entries()):
                self._copied += copied.rows
                return copied
        writer = ShardWriter(root, commit, table, file_format, number, count, copier.make_writer)
        try:
            for row in rows:
                writer.append(copier.row(*row))
                self._copied += 1
            written = writer.close()
        finally:
            writer.abandon()
        assert written is not None
        put_if_absent(done, written.model_dump_json().encode())
        return written

    def _failures(self, group: _Group) -> dict[str, FileEntry]:
        """The remembered failures of the commits, the latest word on each image, as one file."""
        schema = FAILURES.arrow_schema()
        entries = [manifest.files["failures"] for manifest in group.manifests if "failures" in manifest.files]
        if not entries:
            return {}
        tables = [pq.read_table(self._table.file(entry), schema=schema) for entry in entries]
        latest = {row["key"]: row for table in tables for row in table.to_pylist()}
        merged = pa.Table.from_pylist([latest[key] for key in sorted(latest)], schema=schema)
        return {"failures": _put_parquet(self._table.root, "failures", merged)}

    def _plan(self, commit: str) -> Path:
        """Where it is noted which shards of a commit are written, as long as the commit is not made."""
        return compaction_plan(self._store.path, self._table.root.name, commit)

    @property
    def _row_bytes(self) -> int:
        return sum(field.nbytes for field in self._table.table.fields)

    def _check_disk(self, rows: int) -> None:
        need, free = int(rows * self._row_bytes * _SPARE), measure_free_space(self._table.root)
        if free is not None and need > free:
            raise CaptError(
                f"{need:,} bytes are needed and {free:,} are free",
                location=str(self._table.root),
                hint="free some; `capt store gc` may help",
            )

    # === Committing ===

    def _commit_dropping(self, written: list[Manifest]) -> bool:
        """As `_commit`, where rows are left out: no job can come to count on one between the check and the commit."""
        if not written:
            return True
        with lease_for_deletion(self._store.path, self._name):
            self.is_missed = self._is_missed()
            return not self.is_missed and self._commit(written)

    def _commit(self, written: list[Manifest]) -> bool:
        """Put what was written in place of what was merged, as far as that is still there; whether all of it was."""
        log = CommitLog(self._table.root)
        done = [log.update(partial(_in_place, manifest)) for manifest in written]
        for manifest in written:
            for commit in {shard.data.path.partition("/")[0] for shard in manifest.shards}:
                remove_tree(self._plan(commit))
        return all(done)


# === Parts ===


def _in_place(manifest: Manifest, log_state: LogState) -> Manifest | None:
    """The manifest, if all that it replaces is live, or it is already."""
    is_there = manifest.digest in log_state.live_digests or set(manifest.replaces) <= log_state.live_digests
    return manifest if is_there else None


def _makings(table: FeatureTable) -> list[tuple[FeatureMetadata, list[Manifest]]]:
    """The table's commits by what they were made with, oldest first."""
    found: list[tuple[FeatureMetadata, list[Manifest]]] = []
    for manifest in table.manifests:
        facts = manifest.facts
        assert isinstance(facts, FeatureMetadata)
        same = next((manifests for known, manifests in found if known == facts), None)
        if same is None:
            found.append((facts, [manifest]))
        else:
            same.append(manifest)
    return found


def _making_of_shard(
    makings: list[tuple[FeatureMetadata, list[Manifest]]], shards: Sequence[Shard]
) -> "np.ndarray[Any, Any]":
    first: dict[str, int] = {}
    for number, (_, manifests) in enumerate(makings):
        for shard in (shard for manifest in manifests for shard in manifest.shards):
            first.setdefault(shard.data.path, number)
    return np.array([first[shard.data.path] for shard in shards], np.int64)


def _dataset_commits(store: Store) -> dict[str, list[str]]:
    return {dataset.name: [manifest.digest for manifest in dataset.manifests] for dataset in store.datasets()}


def _put_parquet(root: Path, stem: str, rows: pa.Table) -> FileEntry:
    temporary = temporary_path(root / stem)
    try:
        with pq.ParquetWriter(temporary, rows.schema) as writer:
            for start in range(0, len(rows), _FAILURES_A_WRITE):
                writer.write_table(rows.slice(start, _FAILURES_A_WRITE))
        path = root / hash_file(temporary)[:SHORT_FINGERPRINT] / f"{stem}.parquet"
        make_directory(path.parent)
        replace_atomically(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return describe_file(path, root)


def _check_count(shards: int | None) -> None:
    if shards is not None and (shards < 1 or shards > MAX_SHARDS or shards & (shards - 1)):
        raise UsageError(
            f"{shards} is no power of two up to {MAX_SHARDS}", location="--num-shards", hint="write 64, say"
        )
