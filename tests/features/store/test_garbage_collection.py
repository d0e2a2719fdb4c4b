"""Garbage collection deletes what nothing has named for long enough, and nothing that anybody may need."""

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
    feature_recipe,
    features_of,
    killed,
    new_store,
    timed,
)

RECIPE = feature_recipe()
HOUR, DAY = 3600, 86_400
KILLS = 6


def compacted(path: Path, deltas: int = 3) -> Store:
    """A store whose first commits a compaction has replaced."""
    store = new_store(path)
    for number in range(deltas):
        add_features(store, RECIPE, range(number * 8, number * 8 + 8), shards=4)
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
    return np.array_equal(features_of(store, RECIPE, range(rows)), expected_features(range(rows)))


def test_what_was_replaced_goes_when_its_time_has_passed(tmp_path: Path) -> None:
    store = compacted(tmp_path / "store")
    log = CommitLog(store.feature_table_root(RECIPE))
    before = files(store)
    assert capt.store_gc(store=str(store.path))["files"] == 0
    make_old(log.entry_path(4), 25 * HOUR)
    result = capt.store_gc(store=str(store.path))
    gone = before - files(store)
    assert result == result | {"files": len(gone), "paths": sorted(gone), "leased": 0, "dry_run": False}
    assert gone == {path for path in gone if path.endswith((".parquet", ".index"))}
    assert not [path for path in gone if "catalog" in path]
    assert set(contents(store.feature_table_root(RECIPE))) == {
        path.relative_to(store.feature_table_root(RECIPE)).as_posix()
        for path in store.feature_table_root(RECIPE).glob("*/feat*")
    }
    assert reads(store)
    assert verify(store.path).is_healthy


def test_the_time_is_counted_from_the_commit_that_stopped_naming_a_file(tmp_path: Path) -> None:
    store = compacted(tmp_path / "store")
    log = CommitLog(store.feature_table_root(RECIPE))
    make_old(store.feature_table_root(RECIPE), 30 * DAY)
    make_old(log.entry_path(4), 2 * DAY)
    assert capt.store_gc(store=str(store.path), older_than="3d")["files"] == 0
    assert capt.store_gc(store=str(store.path), older_than="36h")["files"] > 0


def test_a_plan_changes_nothing(tmp_path: Path) -> None:
    store = compacted(tmp_path / "store")
    before = files(store)
    planned = capt.store_gc(store=str(store.path), older_than="0s", dry_run=True)
    assert files(store) == before
    assert planned["dry_run"]
    done = capt.store_gc(store=str(store.path), older_than="0s")
    assert {**done, "dry_run": True, "seconds": 0} == {**planned, "seconds": 0}
    assert before - files(store) == set(done["paths"])


def test_what_a_later_commit_names_again_stays(tmp_path: Path) -> None:
    store = new_store(tmp_path / "store")
    add_features(store, RECIPE, range(8))
    add_dataset(store, "some", range(8))
    capt.store_drop(store=str(store.path), dataset="some")
    capt.store_compact(store=str(store.path))
    add_features(store, RECIPE, range(8))
    add_dataset(store, "some", range(8))
    assert capt.store_gc(store=str(store.path), older_than="0s")["files"] == 0
    assert reads(store, 8)


def test_a_dropped_dataset_goes_with_its_captions(tmp_path: Path) -> None:
    store = compacted(tmp_path / "store")
    add_captions(store, "some", range(4))
    capt.store_drop(store=str(store.path), dataset="some")
    gone = capt.store_gc(store=str(store.path), older_than="0s")["paths"]
    assert {path.split("/")[0] for path in gone} == {"datasets", "features", "text"}
    assert {Path(path).name for path in gone} >= {"catalog.parquet", "vocabulary.txt", "graph"}
    assert verify(store.path).is_healthy


def test_a_pinned_snapshot_is_kept_and_told(tmp_path: Path) -> None:
    store = new_store(tmp_path / "store")
    add_features(store, RECIPE, range(8), shards=2)
    add_features(store, RECIPE, range(8, 16))
    add_dataset(store, "some", range(16))
    with hold_snapshot(store.path, store.feature_tables) as (table,):
        capt.store_compact(store=str(store.path))
        result = capt.store_gc(store=str(store.path), older_than="0s")
        assert (result["files"], result["leased"]) == (0, 6)
        assert table.rows == 16
        assert reads(store, 16)
    assert capt.store_gc(store=str(store.path), older_than="0s")["files"] == 6


@pytest.mark.parametrize("purpose", ["prepare", "compact"])
def test_a_table_that_a_job_works_on_is_left_alone(tmp_path: Path, purpose: Any) -> None:
    store = compacted(tmp_path / "store")
    name = table_name(store.path, store.feature_table_root(RECIPE))
    job_database = store.path / "work" / "run-1" / "ledger.sqlite"
    job_database.parent.mkdir(parents=True)
    job_database.touch()
    make_old(job_database.parent, 2 * DAY)
    with lease(store.path, purpose, {name: ()}):
        assert {path.split("/")[0] for path in capt.store_gc(store=str(store.path), older_than="0s")["paths"]} == {
            "datasets"
        }
    assert capt.store_gc(store=str(store.path), older_than="0s")["files"] > 0


def test_shards_of_a_job_that_was_never_finished_go_with_its_plan(tmp_path: Path) -> None:
    store = compacted(tmp_path / "store")
    root = store.feature_table_root(RECIPE)
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


def test_what_killed_jobs_left_is_given_an_hour(tmp_path: Path) -> None:
    store = compacted(tmp_path / "store")
    capt.store_gc(store=str(store.path), older_than="0s")
    root = store.feature_table_root(RECIPE)
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


def test_files_of_others_and_all_that_a_store_needs_stay(tmp_path: Path) -> None:
    store = compacted(tmp_path / "store")
    capt.store_gc(store=str(store.path), older_than="0s")
    notes = [
        store.path / "notes.txt",
        store.feature_table_root(RECIPE) / "notes.txt",
        store.path / "cache" / "stat.sqlite",
    ]
    for path in notes:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    make_old(store.path, 900 * DAY)
    assert capt.store_gc(store=str(store.path), older_than="0s")["files"] == 0
    assert all(path.exists() for path in notes)
    assert store.extractor_path(NETWORK_SHA).exists()


def test_a_lease_that_has_ended_is_deleted(tmp_path: Path) -> None:
    store = compacted(tmp_path / "store")
    capt.store_gc(store=str(store.path), older_than="0s")
    with lease(store.path, "read", {}, seconds=30) as path:
        data = path.read_bytes()
    path.write_bytes(data)
    make_old(path, 31)
    assert capt.store_gc(store=str(store.path))["paths"] == [f"pins/{path.name}"]


def test_nothing_is_deleted_where_a_manifest_is_damaged(tmp_path: Path) -> None:
    store = compacted(tmp_path / "store")
    path = next((store.path / "datasets" / "some" / "manifests").iterdir())
    path.write_bytes(path.read_bytes()[:-1])
    before = files(store)
    with pytest.raises(CorruptFileError, match="corrupt"):
        capt.store_gc(store=str(store.path), older_than="0s")
    assert files(store) == before


@pytest.mark.parametrize("text", ["", "24", "h", "-1h", "1y", "1 h"])
def test_an_age_that_cannot_be_read_is_wrong_usage(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="--older-than"):
        capt.store_gc(store=str(compacted(tmp_path / "store", 1).path), older_than=text)


def test_a_killed_collection_leaves_a_sound_store_and_is_finished_by_the_next(tmp_path: Path) -> None:
    store = compacted(tmp_path / "store", deltas=12)
    shutil.copytree(store.path, tmp_path / "copy")
    within, kills = timed(collect_garbage, StoreGc(store=str(tmp_path / "copy"), older_than="0s")), 0
    shutil.copytree(store.path, tmp_path / "again")
    for seed in range(KILLS):
        kills += killed(seed, within, collect_garbage, StoreGc(store=str(store.path), older_than="0s"))
        assert verify(store.path).is_healthy
        assert reads(store, 96)
        shutil.copytree(tmp_path / "again", store.path, dirs_exist_ok=True)
    capt.store_gc(store=str(store.path), older_than="0s")
    assert set(contents(store.feature_table_root(RECIPE))) == {
        path.relative_to(store.feature_table_root(RECIPE)).as_posix()
        for path in store.feature_table_root(RECIPE).glob("*/feat*")
    }
    assert verify(store.path).is_healthy
    assert kills >= KILLS // 2
