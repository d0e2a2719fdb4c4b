"""Verification finds corrupt, missing and orphan files."""

import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import capt
from features.io.atomic_files import write
from features.store import Store
from features.store.commit_log import CommitLog
from features.store.leases import lease, table_name
from features.store.verification import verify
from schemas.errors import CorruptFileError, ExitCode, StoreError
from schemas.table_config import canonical_json
from tests.features.store.stores import (
    NETWORK_SHA,
    add_captions,
    add_dataset,
    add_features,
    feature_config,
    new_store,
)

PLACES = 200
PARQUET, TFRECORD = feature_config("parquet"), feature_config("tfrecord", "int8")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store with a table of each kind, replaced commits among them."""
    store = new_store(tmp_path / "store")
    add_features(store, TFRECORD, range(12), shards=2)
    add_features(store, PARQUET, range(8), shards=2, failed=[100])
    add_features(store, PARQUET, range(8, 16))
    add_dataset(store, "some", range(4))
    add_dataset(store, "some", range(16))
    add_captions(store, "some", range(16))
    capt.store_compact(store=str(store.path), feature_table=PARQUET.fingerprint, num_shards=4)
    return store


def flip(path: Path, place: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(data)


def within(store: Store, path: Path) -> str:
    return path.relative_to(store.path).as_posix()


def test_a_healthy_store_has_no_findings(store: Store) -> None:
    result = capt.store_verify(store=str(store.path))
    assert result == result | {"shards": 7, "rows": 44, "damaged": [], "missing": [], "orphaned": []}
    assert result["files"] == 25
    assert result["bytes"] > 10_000


def test_a_flipped_byte_is_found_at_each_of_200_offsets(store: Store) -> None:
    chance = random.Random(0)
    paths = sorted(path for path in store.path.rglob("*") if path.is_file() and path.name != "capt-store.json")
    kinds = {"tfrecord", "parquet", "index", "pb", "json", "txt"}
    assert {path.suffix.removeprefix(".") for path in paths} >= kinds
    for number in range(PLACES):
        path = paths[number % len(paths)]
        whole = path.read_bytes()
        flip(path, chance.randrange(len(whole)), chance.randrange(8))
        found = verify(store.path)
        path.write_bytes(whole)
        damaged = [file.path for file in found.corrupt]
        is_pointer = path.parent.name == "log" or path.name == "network.json"
        assert damaged == [within(store, path)] or (is_pointer and found.missing), (path, damaged, found.missing)
        assert not found.orphaned
    assert verify(store.path).is_healthy


def test_corruption_has_its_own_exit_code_and_a_summary(store: Store) -> None:
    shard = next(store.path.glob("features/*/*/*.tfrecord"))
    index = next(store.path.glob("features/*/*/*-of-00004*.index"))
    flip(shard, 50)
    index.unlink()
    with pytest.raises(CorruptFileError, match=r"such as features/") as raised:
        capt.store_verify(store=str(store.path))
    assert raised.value.exit_code == ExitCode.CORRUPT == 4
    figures = raised.value.summary
    assert figures is not None
    assert (figures["damaged"], figures["missing"]) == ([within(store, shard)], [within(store, index)])
    assert figures["rows"] == 44


@pytest.mark.parametrize("change", ["cut", "grown", "empty"])
def test_a_file_of_another_length_is_corrupt(store: Store, change: str) -> None:
    path = next(store.path.glob("datasets/some/*/catalog.parquet"))
    data = path.read_bytes()
    path.write_bytes({"cut": data[:-1], "grown": data + b"\0", "empty": b""}[change])
    assert [file.path for file in verify(store.path).corrupt] == [within(store, path)]


MISSING: dict[str, Callable[[Store], Path]] = {
    "a shard": lambda store: next(store.path.glob("features/*/*/*-of-00004*.parquet")),
    "a vocabulary": lambda store: next(store.path.rglob("vocabulary.txt")),
    "a recipe": lambda store: next(store.path.glob("text/*/recipe.json")),
    "an entry": lambda store: next(store.path.glob("features/*/log/00000002.json")),
    "a manifest": lambda store: next(store.path.glob("text/*/manifests/*.json")),
    "a network": lambda store: store.extractor_path(NETWORK_SHA),
    "the note of a network": lambda store: next(store.path.glob("features/*/network.json")),
    "the marker": lambda store: store.path / "capt-store.json",
}


@pytest.mark.parametrize("message", MISSING)
def test_missing_files_are_listed(store: Store, message: str) -> None:
    path = MISSING[message](store)
    path.unlink()
    assert verify(store.path).missing == (within(store, path),)


def test_a_superseded_file_may_be_missing_but_not_corrupt(store: Store) -> None:
    replaced = sorted(store.path.glob("features/*/*/*-of-00002*.parquet"))
    replaced[0].unlink()
    flip(replaced[1], 10)
    found = verify(store.path)
    assert (found.missing, [file.path for file in found.corrupt]) == ((), [within(store, replaced[1])])
    capt.store_gc(store=str(store.path), older_than="0s")
    assert verify(store.path).is_healthy


def test_unreferenced_files_are_orphaned_and_not_corrupt(store: Store) -> None:
    root = store.feature_table_root(PARQUET)
    strays = [
        store.path / "notes.txt",
        store.path / "features" / "notes" / "a.txt",
        store.path / "networks" / "note.pb",
        root / "notes.txt",
        root / "log" / "1.json",
        root / "manifests" / "1.json",
        root / "stray.parquet",
        next(root.glob("*/*.index")).parent / "stray.index",
    ]
    for path in strays:
        path.parent.mkdir(exist_ok=True)
        path.write_text("stray")
    (store.path / "link").symlink_to("/")
    result = capt.store_verify(store=str(store.path))
    assert result["orphaned"] == sorted([*(within(store, path) for path in strays), "link"])


def test_files_of_running_jobs_are_not_orphaned(store: Store) -> None:
    root = store.feature_table_root(PARQUET)
    temporary_files = [
        root / "log" / ".aside-1",
        store.path / "networks" / ".aside-2",
        root / "0123456789abcdef" / ".aside-3",
    ]
    kept = [store.path / "work" / "a", store.path / "cache" / "b", store.path / "pins" / "c", root.parent / ".aside-4"]
    kept.append(store.path / "datasets" / "some" / "reports" / "0" / "features.parquet")
    for path in (*temporary_files, *kept):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    kept[-2].unlink()
    kept[2].unlink()
    assert not verify(store.path).orphaned
    for path in temporary_files:
        os.utime(path, (time.time() - 7200,) * 2)
    assert sorted(verify(store.path).orphaned) == sorted(within(store, path) for path in temporary_files)


def test_shards_of_a_commit_in_progress_are_not_orphaned(store: Store) -> None:
    root = store.feature_table_root(PARQUET)
    commit = root / "0123456789abcdef"
    shutil.copytree(next(root.glob("*/*.index")).parent, commit)
    assert len(verify(store.path).orphaned) > 0
    with lease(store.path, "prepare", {table_name(store.path, root): ()}):
        assert not verify(store.path).orphaned
    (store.path / "work" / f"{root.name}-{commit.name}").mkdir(parents=True)
    assert not verify(store.path).orphaned


def test_shards_of_a_corrupt_manifest_are_not_orphaned(store: Store) -> None:
    path = next(store.path.glob("text/*/manifests/*.json"))
    flip(path, 5)
    found = verify(store.path)
    assert [file.path for file in found.corrupt] == [within(store, path)]
    assert not found.orphaned


def restated(store: Store, **changes: Any) -> str:
    """Commit a manifest that says something else of a table's first shard."""
    log = CommitLog(store.feature_table_root(TFRECORD))
    (manifest,) = log.live()
    shard = manifest.shards[0].model_copy(update=changes)
    log.append(manifest.model_copy(update={"shards": (shard,), "replaces": (manifest.digest,)}))
    assert shard.index is not None
    return f"{table_name(store.path, store.feature_table_root(TFRECORD))}/{shard.index.path}"


@pytest.mark.parametrize(
    "changes",
    [{"rows": 1}, {"first_key": "0" * 64}, {"last_key": "f" * 64}, {"number": 1}, {"count": 1 << 16}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_manifest_that_contradicts_its_shard_is_found(store: Store, changes: dict[str, Any]) -> None:
    path = restated(store, **changes)
    assert path in {file.path for file in verify(store.path).corrupt}


def test_a_manifest_of_another_table_is_corrupt(store: Store) -> None:
    mine, other = store.feature_table_root(PARQUET), store.feature_table_root(TFRECORD)
    digest = CommitLog(other).append(CommitLog(mine).live()[0])
    damaged = {file.path: file.expected for file in verify(store.path).corrupt}
    assert damaged[within(store, other / "manifests" / f"{digest}.json")] == f"a manifest of {TFRECORD.fingerprint}"


def test_a_table_config_of_another_table_is_corrupt(store: Store) -> None:
    mine, other = store.feature_table_root(PARQUET), store.feature_table_root(TFRECORD)
    shutil.copyfile(mine / "recipe.json", other / "recipe.json")
    (file,) = verify(store.path).corrupt
    assert (file.path, file.expected) == (within(store, other / "recipe.json"), f"SHA-256 {other.name}…")
    assert file.got == PARQUET.fingerprint


def test_a_changed_extractor_record_is_found(store: Store) -> None:
    path = store.feature_table_root(PARQUET) / "network.json"
    path.write_bytes(canonical_json({"network": NETWORK_SHA, "shape": [4, 17]}))
    assert [file.path for file in verify(store.path).corrupt] == [within(store, path)]


def test_a_corrupt_marker_is_found_and_a_newer_store_is_refused(store: Store) -> None:
    marker = store.path / "capt-store.json"
    flip(marker, 3)
    assert [file.path for file in verify(store.path).corrupt] == ["capt-store.json"]
    write(marker, canonical_json({"format": "capt-store", "version": 2}))
    with pytest.raises(StoreError, match="version 2"):
        verify(store.path)


def test_verification_refuses_a_directory_without_a_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="the store does not exist"):
        capt.store_verify(store=str(tmp_path / "nowhere"))
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="not a capt store"):
        capt.store_verify(store=str(tmp_path))


def test_concurrent_compaction_and_collection_cause_no_findings(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from features.store import verification as module

    pending, checks = [True], module._list_checks

    def listed(*arguments: Any) -> Any:
        found = checks(*arguments)
        if pending and pending.pop():
            add_features(store, TFRECORD, range(12, 16))
            capt.store_compact(store=str(store.path), num_shards=2)
            capt.store_gc(store=str(store.path), older_than="0s")
        return found

    monkeypatch.setattr(module, "_list_checks", listed)
    found = verify(store.path)
    assert found.is_healthy
    assert not found.orphaned
