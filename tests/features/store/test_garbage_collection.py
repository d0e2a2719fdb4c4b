"""Garbage collection deletes old unreferenced files, and no file that a job may need."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import capt
from features.store import Store
from features.store.commit_log import CommitLog
from features.store.garbage_collection import collect_garbage
from features.store.leases import hold_snapshot, lease, table_name
from features.store.verification import verify
from schemas.errors import CorruptFileError, UsageError
from schemas.options.store import StoreGc
from tests.features.store.stores import (
    NETWORK_SHA,
    add_captions,
    add_dataset,
    add_features,
    contents,
    expected_features,
    feature_config,
    features_of,
    killed,
    new_store,
    timed,
)

CONFIG = feature_config()
HOUR, DAY = 3600, 86_400
KILLS, MAX_ATTEMPTS = 4, 24


def compacted(path: Path, deltas: int = 3) -> Store:
    """A store whose first commits a compaction has replaced."""
    store = new_store(path)
    for number in range(deltas):
        add_features(store, CONFIG, range(number * 8, number * 8 + 8), shards=4)
    add_dataset(store, "some", range(4))
    add_dataset(store, "some", range(deltas * 8))
    capt.store_compact(store=str(store.path))
    return store


def files(store: Store) -> set[str]:
    return {path.relative_to(store.path).as_posix() for path in store.path.rglob("*") if path.is_file()}


def make_old(path: Path, seconds: float) -> None:
    for one in (path, *path.rglob("*")) if path.is_dir() else (path,):
        os.utime(one, (time.time() - seconds,) * 2)


def reads(store: Store, rows: int = 24) -> bool:
    return np.array_equal(features_of(store, CONFIG, range(rows)), expected_features(range(rows)))


def test_superseded_files_are_deleted_after_the_minimum_time(tmp_path: Path) -> None:
    store = compacted(tmp_path / "store")
    log = CommitLog(store.feature_table_root(CONFIG))
    before = files(store)
    assert capt.store_gc(store=str(store.path))["files"] == 0
    make_old(log.entry_path(4), 25 * HOUR)
    result = capt.store_gc(store=str(store.path))
    gone = before - files(store)
    assert result == result | {"files": len(gone), "paths": sorted(gone), "leased": 0, "dry_run": False}
    assert gone == {path for path in gone if path.endswith((".parquet", ".index"))}
    assert not [path for path in gone if "catalog" in path]
    assert set(contents(store.feature_table_root(CONFIG))) == {
        path.relative_to(store.feature_table_root(CONFIG)).as_posix()
        for path in store.feature_table_root(CONFIG).glob("*/feat*")
    }
    assert reads(store)
    assert verify(store.path).is_healthy


def test_the_time_starts_at_the_commit_that_superseded_a_file(tmp_path: Path) -> None:
    store = compacted(tmp_path / "store")
    log = CommitLog(store.feature_table_root(CONFIG))
    make_old(store.feature_table_root(CONFIG), 30 * DAY)
    make_old(log.entry_path(4), 2 * DAY)
    assert capt.store_gc(store=str(store.path), older_than="3d")["files"] == 0
    assert capt.store_gc(store=str(store.path), older_than="36h")["files"] > 0


def test_a_dry_run_changes_nothing(tmp_path: Path) -> None:
    store = compacted(tmp_path / "store")
    before = files(store)
    planned = capt.store_gc(store=str(store.path), older_than="0s", dry_run=True)
    assert files(store) == before
    assert planned["dry_run"]
    done = capt.store_gc(store=str(store.path), older_than="0s")
    assert {**done, "dry_run": True, "seconds": 0} == {**planned, "seconds": 0}
    assert before - files(store) == set(done["paths"])


def test_files_that_a_later_commit_references_again_stay(tmp_path: Path) -> None:
    store = new_store(tmp_path / "store")
    add_features(store, CONFIG, range(8))
    add_dataset(store, "some", range(8))
    capt.store_drop(store=str(store.path), dataset="some")
    capt.store_compact(store=str(store.path))
    add_features(store, CONFIG, range(8))
    add_dataset(store, "some", range(8))
    assert capt.store_gc(store=str(store.path), older_than="0s")["files"] == 0
    assert reads(store, 8)


def test_files_of_a_dropped_dataset_and_its_captions_are_deleted(tmp_path: Path) -> None:
    store = compacted(tmp_path / "store")
    add_captions(store, "some", range(4))
    capt.store_drop(store=str(store.path), dataset="some")
    gone = capt.store_gc(store=str(store.path), older_than="0s")["paths"]
    assert {path.split("/")[0] for path in gone} == {"datasets", "features", "text"}
    assert {Path(path).name for path in gone} >= {"catalog.parquet", "vocabulary.txt", "graph"}
    assert verify(store.path).is_healthy


def test_files_of_a_leased_snapshot_are_kept_and_counted(tmp_path: Path) -> None:
    store = new_store(tmp_path / "store")
    add_features(store, CONFIG, range(8), shards=2)
    add_features(store, CONFIG, range(8, 16))
    add_dataset(store, "some", range(16))
    with hold_snapshot(store.path, store.feature_tables) as (table,):
        capt.store_compact(store=str(store.path))
        result = capt.store_gc(store=str(store.path), older_than="0s")
        assert (result["files"], result["leased"]) == (0, 6)
        assert table.rows == 16
        assert reads(store, 16)
    assert capt.store_gc(store=str(store.path), older_than="0s")["files"] == 6


@pytest.mark.parametrize("purpose", ["prepare", "compact"])
def test_a_table_that_a_job_writes_to_is_skipped(tmp_path: Path, purpose: Any) -> None:
    store = compacted(tmp_path / "store")
    name = table_name(store.path, store.feature_table_root(CONFIG))
    job_database = store.path / "work" / "run-1" / "ledger.sqlite"
    job_database.parent.mkdir(parents=True)
    job_database.touch()
    make_old(job_database.parent, 2 * DAY)
    with lease(store.path, purpose, {name: ()}):
        assert {path.split("/")[0] for path in capt.store_gc(store=str(store.path), older_than="0s")["paths"]} == {
            "datasets"
        }
    assert capt.store_gc(store=str(store.path), older_than="0s")["files"] > 0


def test_shards_of_an_unfinished_job_are_deleted_with_its_plan(tmp_path: Path) -> None:
    store = compacted(tmp_path / "store")
    root = store.feature_table_root(CONFIG)
    abandoned = root / "0123456789abcdef"
    shutil.copytree(next(path.parent for path in root.glob("*/*.index")), abandoned)
    plan = store.path / "work" / f"{root.name}-{abandoned.name}" / "done" / "00000.json"
    plan.parent.mkdir(parents=True)
    plan.write_text("{}")
    capt.store_gc(store=str(store.path), older_than="0s")
    make_old(abandoned, 2 * DAY)
    assert capt.store_gc(store=str(store.path))["files"] == 0
    make_old(plan.parent.parent, 2 * DAY)
    gone = capt.store_gc(store=str(store.path))["paths"]
    assert {path.rsplit("/", 1)[0] for path in gone} == {
        f"features/{root.name}/{abandoned.name}",
        f"work/{root.name}-{abandoned.name}/done",
    }
    assert not abandoned.exists()
    assert not list((store.path / "work").iterdir())
    assert reads(store)


def test_files_of_killed_jobs_are_kept_for_an_hour(tmp_path: Path) -> None:
    store = compacted(tmp_path / "store")
    capt.store_gc(store=str(store.path), older_than="0s")
    root = store.feature_table_root(CONFIG)
    left = [
        store.path / ".aside-0",
        store.path / "networks" / ".aside-1",
        root / "log" / ".aside-2",
        root / "manifests" / ".aside-3",
        root / "manifests" / f"{'0' * 64}.json",
        root / "0123456789abcdef" / ".aside-4",
        store.path / "networks" / f"{'1' * 64}.pb",
        store.path / "work" / "run-1" / "ledger.sqlite",
    ]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    assert capt.store_gc(store=str(store.path), older_than="0s")["files"] == 0
    for path in left:
        make_old(path, 2 * HOUR)
    make_old(store.path / "work", 2 * HOUR)
    assert capt.store_gc(store=str(store.path), older_than="3h")["files"] == 0
    assert capt.store_gc(store=str(store.path), older_than="0s")["paths"] == sorted(
        path.relative_to(store.path).as_posix() for path in left
    )
    assert verify(store.path).is_healthy


def test_orphan_files_of_others_and_required_files_stay(tmp_path: Path) -> None:
    store = compacted(tmp_path / "store")
    capt.store_gc(store=str(store.path), older_than="0s")
    notes = [
        store.path / "notes.txt",
        store.feature_table_root(CONFIG) / "notes.txt",
        store.path / "cache" / "stat.sqlite",
    ]
    for path in notes:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    make_old(store.path, 900 * DAY)
    assert capt.store_gc(store=str(store.path), older_than="0s")["files"] == 0
    assert all(path.exists() for path in notes)
    assert store.extractor_path(NETWORK_SHA).exists()


def test_an_expired_lease_is_deleted(tmp_path: Path) -> None:
    store = compacted(tmp_path / "store")
    capt.store_gc(store=str(store.path), older_than="0s")
    with lease(store.path, "read", {}, seconds=30) as path:
        data = path.read_bytes()
    path.write_bytes(data)
    make_old(path, 31)
    assert capt.store_gc(store=str(store.path))["paths"] == [f"pins/{path.name}"]


def test_nothing_is_deleted_if_a_manifest_is_corrupt(tmp_path: Path) -> None:
    store = compacted(tmp_path / "store")
    path = next((store.path / "datasets" / "some" / "manifests").iterdir())
    path.write_bytes(path.read_bytes()[:-1])
    before = files(store)
    with pytest.raises(CorruptFileError, match="corrupt"):
        capt.store_gc(store=str(store.path), older_than="0s")
    assert files(store) == before


@pytest.mark.parametrize("text", ["", "24", "h", "-1h", "1y", "1 h"])
def test_an_invalid_time_is_a_usage_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="--older-than"):
        capt.store_gc(store=str(compacted(tmp_path / "store", 1).path), older_than=text)


def test_a_killed_collection_leaves_a_healthy_store_and_the_next_one_finishes_it(tmp_path: Path) -> None:
    store = compacted(tmp_path / "store", deltas=12)
    shutil.copytree(store.path, tmp_path / "copy")
    within, kills = timed(collect_garbage, StoreGc(store=str(tmp_path / "copy"), older_than="0s")), 0
    shutil.copytree(store.path, tmp_path / "again")
    for seed in range(MAX_ATTEMPTS):
        if kills == KILLS:
            break
        kills += killed(seed, within, collect_garbage, StoreGc(store=str(store.path), older_than="0s"))
        assert verify(store.path).is_healthy
        assert reads(store, 96)
        shutil.copytree(tmp_path / "again", store.path, dirs_exist_ok=True)
    capt.store_gc(store=str(store.path), older_than="0s")
    assert set(contents(store.feature_table_root(CONFIG))) == {
        path.relative_to(store.feature_table_root(CONFIG)).as_posix()
        for path in store.feature_table_root(CONFIG).glob("*/feat*")
    }
    assert verify(store.path).is_healthy
    assert kills == KILLS
