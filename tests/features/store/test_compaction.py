"""Compaction copies rows to one commit with the bytes of a single run, and loses nothing."""

import multiprocessing
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import capt
from features.store import Store, compaction, merge, open_store, shards
from features.store.commit_log import CommitLog
from features.store.compaction import compact_store, compact_table
from features.store.leases import hold_snapshot, lease, table_name
from features.store.verification import verify
from schemas.errors import CaptError, CorruptFileError, UsageError
from schemas.options.store import StoreCompact
from tests.features.store import stores
from tests.features.store.stores import (
    add_dataset,
    add_features,
    contents,
    expected_features,
    feature_config,
    features_of,
    key_of,
    keys_of,
    killed,
    new_store,
    timed,
)

KILLS = 10


def grown(path: Path, table_config: Any, **options: Any) -> Store:
    """A store of 64 rows that came in three commits, of which two share ten rows."""
    store = new_store(path)
    add_features(store, table_config, range(50), shards=4, **options)
    add_features(store, table_config, range(40, 60), failed=[1000], **options)
    add_features(store, table_config, range(60, 64), shards=2, failed=[1001, 1000], **options)
    add_dataset(store, "some", range(30))
    add_dataset(store, "others", range(20, 64))
    return store


def in_one_go(path: Path, table_config: Any, rows: int = 64, shard_count: int = 8) -> Store:
    store = new_store(path)
    add_features(store, table_config, range(rows), shards=shard_count, failed=[1000, 1001] if rows == 64 else ())
    add_dataset(store, "some", range(rows))
    return store


@pytest.mark.parametrize("file_format", ["tfrecord", "parquet"])
@pytest.mark.parametrize(
    ("dtype", "compression"), [("float32", "none"), ("bfloat16", "none"), ("int8", "none"), ("int8", "zstd")]
)
def test_a_compacted_store_equals_one_written_in_one_run(
    tmp_path: Path, file_format: Any, dtype: Any, compression: Any
) -> None:
    table_config = feature_config(file_format, dtype, compression)
    store, other = grown(tmp_path / "grown", table_config), in_one_go(tmp_path / "whole", table_config)
    result = capt.store_compact(store=str(store.path), num_shards=8)
    assert contents(store.feature_table_root(table_config)) == contents(other.feature_table_root(table_config))
    assert result == result | {"tables": 1, "merged": 3, "rows": 64, "dropped": 0, "repeated": 10, "shards": 8}
    assert np.array_equal(features_of(store, table_config, range(64)), expected_features(range(64), dtype))
    assert verify(store.path).is_healthy


def test_the_shard_count_is_chosen_from_all_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table_config = feature_config()
    monkeypatch.setattr(shards, "SHARD_BYTES", 20 * (32 + 128))
    store, other = grown(tmp_path / "grown", table_config), in_one_go(tmp_path / "whole", table_config, shard_count=4)
    capt.store_compact(store=str(store.path))
    assert contents(store.feature_table_root(table_config)) == contents(other.feature_table_root(table_config))


@pytest.mark.parametrize("range_rows", [1, 5, 40])
def test_rows_are_merged_range_by_range(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, range_rows: int) -> None:
    table_config = feature_config()
    monkeypatch.setattr(merge, "_RANGE_ROWS", range_rows)
    monkeypatch.setattr(compaction, "_MAX_OPEN", 2)
    store, other = grown(tmp_path / "grown", table_config), in_one_go(tmp_path / "whole", table_config)
    capt.store_compact(store=str(store.path), num_shards=8)
    assert contents(store.feature_table_root(table_config)) == contents(other.feature_table_root(table_config))


def test_changing_the_shard_count_copies_rows_and_a_compact_table_is_unchanged(tmp_path: Path) -> None:
    table_config = feature_config()
    store = in_one_go(tmp_path / "store", table_config, rows=40, shard_count=1)
    before = contents(store.feature_table_root(table_config))
    assert capt.store_compact(store=str(store.path), num_shards=16)["shards"] == 16
    assert capt.store_compact(store=str(store.path), num_shards=16) == {
        **capt.store_compact(store=str(store.path), num_shards=16, feature_table=table_config.fingerprint[:8]),
        "seconds": pytest.approx(0, abs=10),
    }
    assert len(CommitLog(store.feature_table_root(table_config)).entries()) == 2
    capt.store_compact(store=str(store.path), num_shards=1)
    assert contents(store.feature_table_root(table_config)) == before
    with pytest.raises(UsageError, match="not a power of two"):
        capt.store_compact(store=str(store.path), num_shards=3)


def test_rows_that_no_dataset_references_are_dropped_and_counted(tmp_path: Path) -> None:
    table_config = feature_config()
    store = grown(tmp_path / "store", table_config)
    add_dataset(store, "others", range(25, 32))
    done = compact_table(store, table_config.fingerprint)
    assert (done.rows, done.dropped, done.repeated) == (32, 32, 10)
    assert np.array_equal(features_of(store, table_config, range(32)), expected_features(range(32)))
    with pytest.raises(KeyError):
        features_of(store, table_config, [32])
    assert open_store(store.path).feature_table(table_config.fingerprint).failures().keys() == {
        key_of(1000),
        key_of(1001),
    }


def test_rows_that_were_added_again_can_be_read(tmp_path: Path) -> None:
    table_config = feature_config()
    store = in_one_go(tmp_path / "store", table_config, rows=8, shard_count=1)
    add_dataset(store, "some", range(4))
    assert compact_table(store, table_config.fingerprint).dropped == 4
    add_features(store, table_config, range(8))
    assert np.array_equal(features_of(store, table_config, range(8)), expected_features(range(8)))


def test_a_table_without_referenced_rows_becomes_empty_and_accepts_new_ones(tmp_path: Path) -> None:
    table_config = feature_config()
    store = new_store(tmp_path / "store")
    add_features(store, table_config, range(8))
    assert compact_table(store, table_config.fingerprint).dropped == 8
    assert store.feature_table(table_config.fingerprint).rows == 0
    assert compact_table(store, table_config.fingerprint).merged == 0
    add_features(store, table_config, range(4))
    assert store.feature_table(table_config.fingerprint).rows == 4


def test_commits_with_different_provenance_stay_separate(tmp_path: Path) -> None:
    table_config = feature_config()
    store = new_store(tmp_path / "store")
    for numbers, numerics in ((range(8), "cpu-avx2"), (range(6, 16), "cpu-amx_bf16"), (range(16, 20), "cpu-avx2")):
        add_features(store, table_config, numbers, numerics=numerics)
    add_dataset(store, "some", range(20))
    capt.store_compact(store=str(store.path))
    table = store.feature_table(table_config.fingerprint)
    rows = {one.facts.numerics: sum(shard.rows for shard in one.shards) for one in table.manifests}  # type: ignore[union-attr]
    assert rows == {"cpu-avx2": 12, "cpu-amx_bf16": 8}
    assert capt.store_compact(store=str(store.path))["merged"] == 0
    assert np.array_equal(features_of(store, table_config, range(20)), expected_features(range(20)))


def test_a_corrupt_shard_is_not_copied(tmp_path: Path) -> None:
    table_config = feature_config()
    store = grown(tmp_path / "store", table_config)
    root = store.feature_table_root(table_config)
    path = root / CommitLog(root).live()[0].shards[2].data.path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptFileError, match=f"{path.name}.*expected SHA-256"):
        capt.store_compact(store=str(store.path), num_shards=8)
    assert len(CommitLog(root).entries()) == 3
    left = [path for part in ("features", "pins", "work") for path in (store.path / part).rglob("*") if path.is_file()]
    assert not [path for path in left if path.name.startswith(".aside-") or path.parent.name == "pins"]


def test_too_little_disk_space_is_an_error_before_copying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table_config = feature_config()
    store = grown(tmp_path / "store", table_config)
    usage = compaction.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(compaction.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(CaptError, match="but 1,000 are free"):
        capt.store_compact(store=str(store.path), num_shards=8)


# === Beside others ===


def while_copying(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """Let something happen, once, between a compaction's survey and its commit."""
    pending, copier = [happens], compaction.RowCopier

    def opened(*arguments: Any) -> Any:
        while pending:
            pending.pop()()
        return copier(*arguments)

    monkeypatch.setattr(compaction, "RowCopier", opened)


def test_a_concurrent_commit_survives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table_config = feature_config()
    store = grown(tmp_path / "store", table_config)
    while_copying(monkeypatch, lambda: add_features(store, table_config, range(64, 70)))
    assert compact_table(store, table_config.fingerprint).rows == 64
    assert np.array_equal(features_of(store, table_config, range(70)), expected_features(range(70)))


def test_a_row_that_a_dataset_references_meanwhile_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table_config = feature_config()
    store = grown(tmp_path / "store", table_config)
    add_dataset(store, "others", [1])
    while_copying(monkeypatch, lambda: add_dataset(store, "third", [63]))
    assert compact_table(store, table_config.fingerprint).dropped == 0
    assert np.array_equal(features_of(store, table_config, [0, 63]), expected_features([0, 63]))
    assert compact_table(store, table_config.fingerprint).dropped == 64 - 31
    assert np.array_equal(features_of(store, table_config, [0, 63]), expected_features([0, 63]))


def test_a_concurrent_dataset_change_keeps_unreferenced_rows_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table_config = feature_config()
    store = grown(tmp_path / "store", table_config)
    add_dataset(store, "others", [1])
    while_copying(monkeypatch, lambda: add_dataset(store, "third", [2]))
    assert compact_table(store, table_config.fingerprint).dropped == 34


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_rows_stay_while_a_job_prepares_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    table_config = feature_config()
    store = grown(tmp_path / "store", table_config)
    add_dataset(store, "others", [1])
    held = lease(store.path, "prepare", {table_name(store.path, store.feature_table_root(table_config)): ()})
    if when == "meanwhile":
        while_copying(monkeypatch, held.__enter__)
    else:
        held.__enter__()
    try:
        assert compact_table(store, table_config.fingerprint).dropped == 0
        assert np.array_equal(features_of(store, table_config, range(64)), expected_features(range(64)))
    finally:
        held.__exit__(None, None, None)
    assert compact_table(store, table_config.fingerprint).dropped == 34


def test_an_overtaken_compaction_starts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table_config = feature_config()
    store = grown(tmp_path / "store", table_config)
    while_copying(monkeypatch, lambda: compact_table(store, table_config.fingerprint, shards=2))
    assert compact_table(store, table_config.fingerprint, shards=4).merged == 1
    assert [len(one.shards) for one in CommitLog(store.feature_table_root(table_config)).live()] == [4]


def test_an_open_reader_keeps_its_snapshot(tmp_path: Path) -> None:
    table_config = feature_config("tfrecord")
    store = grown(tmp_path / "store", table_config)
    with hold_snapshot(store.path, lambda: [store.feature_table(table_config.fingerprint)]) as (table,):
        add_dataset(store, "others", [1])
        capt.store_compact(store=str(store.path), num_shards=8)
        capt.store_gc(store=str(store.path), older_than="0s")
        positions = table.lookup(keys_of(range(64)))
        assert np.array_equal(table.read(positions), expected_features(range(64)))
        assert not verify(store.path).orphaned
    root, live = store.feature_table_root(table_config), contents(store.feature_table_root(table_config))
    assert capt.store_gc(store=str(store.path), older_than="0s")["files"] > 0
    assert {path.relative_to(root).as_posix() for path in root.glob("*/*.*") if path.suffix != ".json"} == set(live)
    assert np.array_equal(features_of(store, table_config, range(30)), expected_features(range(30)))


def _grow(path: str, table_config: Any, first: int) -> None:
    for number in range(first, first + 60, 5):
        add_features(open_store(path), table_config, range(number, number + 5))


@pytest.mark.slow
def test_concurrent_writers_and_compaction_lose_nothing(tmp_path: Path) -> None:
    table_config = feature_config()
    store = grown(tmp_path / "store", table_config)
    add_dataset(store, "all", range(200))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    writers = [context.Process(target=_grow, args=(str(store.path), table_config, first)) for first in (64, 110)]
    for writer in writers:
        writer.start()
    compactions = 0
    while any(writer.is_alive() for writer in writers):
        compactions += bool(capt.store_compact(store=str(store.path))["merged"])
    assert [writer.exitcode for writer in writers] == [0, 0]
    capt.store_compact(store=str(store.path))
    assert np.array_equal(features_of(store, table_config, range(170)), expected_features(range(170)))
    assert (
        store.feature_table(table_config.fingerprint).rows
        == sum(shard.rows for shard in store.feature_table("").shards)
        == 170
    )
    assert verify(store.path).is_healthy
    assert compactions > 1


# === Killed ===


def test_a_killed_compaction_leaves_a_healthy_store_and_the_next_one_finishes_it(tmp_path: Path) -> None:
    table_config = feature_config()
    store, other = grown(tmp_path / "grown", table_config), in_one_go(tmp_path / "whole", table_config, 64 + KILLS, 16)
    add_dataset(store, "later", range(64, 64 + KILLS))
    shutil.copytree(store.path, tmp_path / "copy")
    within, kills = timed(compact_store, StoreCompact(store=str(tmp_path / "copy"), num_shards=16)), 0
    for number in range(KILLS):
        add_features(store, table_config, [64 + number])
        kills += killed(number, within, compact_store, StoreCompact(store=str(store.path), num_shards=16))
        assert verify(store.path).is_healthy
        assert np.array_equal(
            features_of(store, table_config, range(65 + number)), expected_features(range(65 + number))
        )
    capt.store_compact(store=str(store.path), num_shards=16)
    live = contents(store.feature_table_root(table_config))
    assert {path: sha256 for path, sha256 in live.items() if "failures" not in path} == contents(
        other.feature_table_root(table_config)
    )
    assert verify(store.path).is_healthy
    assert kills >= KILLS // 2


def test_shards_that_a_killed_compaction_wrote_are_not_copied_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table_config = feature_config()
    store, other = grown(tmp_path / "grown", table_config), in_one_go(tmp_path / "whole", table_config)
    written = []

    class Interrupted(shards.ShardWriter):
        def close(self) -> Any:
            if len(written) == 5:
                raise KeyboardInterrupt
            written.append(self.number)
            return super().close()

    with monkeypatch.context() as patch:
        patch.setattr(compaction, "ShardWriter", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            capt.store_compact(store=str(store.path), num_shards=8)
    assert not verify(store.path).orphaned
    before = {
        path: path.stat().st_ino
        for path in store.feature_table_root(table_config).rglob("features-0000[0-4]-of-00008*")
    }
    capt.store_compact(store=str(store.path), num_shards=8)
    assert len(before) == 10
    assert before == {path: path.stat().st_ino for path in before}
    assert contents(store.feature_table_root(table_config)) == contents(other.feature_table_root(table_config))


# === Cost ===

_MEASURED = """
import sys
import capt

def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))

before = peak()
capt.store_compact(store=sys.argv[1], num_shards=4)
print(peak() - before, "tensorflow" in sys.modules)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_compaction_needs_bounded_memory_and_no_tensorflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "SHAPE", (64, 256))
    table_config = feature_config("tfrecord", "float32")
    kibibytes_a_row, growth = 64, []
    for rows in (100, 700):
        store = new_store(tmp_path / str(rows))
        add_features(store, table_config, range(rows))
        add_features(store, table_config, range(rows, rows + 10))
        add_dataset(store, "all", range(rows + 10))
        command = [sys.executable, "-c", _MEASURED, str(store.path)]
        kibibytes, loaded = subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()
        assert loaded == "False"
        growth.append(int(kibibytes))
    assert growth[1] - growth[0] < 600 * kibibytes_a_row / 5
