"""A dropped dataset is gone for new readers, can be prepared again, and is never half removed."""

from pathlib import Path

import pytest

import capt
from features.store import Store
from features.store.commit_log import CommitLog
from features.store.drop import drop_dataset
from features.store.verification import verify
from schemas.errors import StoreError
from schemas.manifests import DroppedMetadata
from schemas.options.store import StoreDrop
from tests.features.store.stores import (
    add_captions,
    add_dataset,
    add_features,
    feature_config,
    killed,
    new_store,
    timed,
)

KILLS, MAX_ATTEMPTS = 3, 24


def prepared(path: Path) -> Store:
    store = new_store(path)
    add_features(store, feature_config(), range(12))
    for name, numbers in (("one", range(8)), ("two", range(6, 12))):
        add_dataset(store, name, numbers)
        add_captions(store, name, numbers)
    return store


def names(store: Store) -> tuple[list[str], list[str]]:
    return [one.name for one in store.datasets()], sorted(
        table.table_config.dataset for table in store.caption_tables()
    )


def test_dropping_a_dataset_removes_its_caption_tables_only(tmp_path: Path) -> None:
    store = prepared(tmp_path / "store")
    texts = [table.fingerprint for table in store.caption_tables() if table.table_config.dataset == "one"]
    result = capt.store_drop(store=str(store.path), dataset="one")
    assert result == result | {"dataset": "one", "images": 8, "caption_tables": texts}
    assert names(store) == (["two"], ["two"])
    assert store.feature_table("").rows == 12
    found = verify(store.path)
    assert found.is_healthy
    assert not found.orphaned


def test_an_open_snapshot_keeps_the_dropped_dataset(tmp_path: Path) -> None:
    store = prepared(tmp_path / "store")
    dataset = store.dataset("one")
    capt.store_drop(store=str(store.path), dataset="one")
    assert dataset.catalog().num_rows == 8


def test_dropping_again_is_no_error_but_an_unknown_dataset_is(tmp_path: Path) -> None:
    store = prepared(tmp_path / "store")
    capt.store_drop(store=str(store.path), dataset="one")
    entries = CommitLog(store.dataset_root("one")).entries()
    assert capt.store_drop(store=str(store.path), dataset="one")["images"] == 0
    assert CommitLog(store.dataset_root("one")).entries() == entries
    with pytest.raises(StoreError, match=r"no dataset 'three'.*two"):
        capt.store_drop(store=str(store.path), dataset="three")


def test_a_dropped_dataset_can_be_prepared_again(tmp_path: Path) -> None:
    store = prepared(tmp_path / "store")
    for _ in range(3):
        capt.store_drop(store=str(store.path), dataset="one")
        assert names(store) == (["two"], ["two"])
        add_dataset(store, "one", range(8))
        add_captions(store, "one", range(8))
        assert names(store) == (["one", "two"], ["one", "two"])
    assert store.dataset("one").catalog().num_rows == 8
    assert verify(store.path).is_healthy


def test_a_dataset_committed_meanwhile_is_not_dropped(tmp_path: Path) -> None:
    store = prepared(tmp_path / "store")
    log = CommitLog(store.dataset_root("one"))
    seen = tuple(manifest.digest for manifest in log.live())
    newer = add_dataset(store, "one", range(3))
    log.append(newer.model_copy(update={"files": {}, "replaces": seen, "facts": DroppedMetadata()}))
    assert store.dataset("one").catalog().num_rows == 3


def test_a_killed_drop_leaves_a_healthy_store_and_the_next_one_finishes_it(tmp_path: Path) -> None:
    store = prepared(tmp_path / "store")
    within, kills = timed(drop_dataset, StoreDrop(store=str(prepared(tmp_path / "other").path), dataset="one")), 0
    for seed in range(MAX_ATTEMPTS):
        if kills == KILLS:
            break
        kills += killed(seed, within, drop_dataset, StoreDrop(store=str(store.path), dataset="one"))
        assert verify(store.path).is_healthy
        datasets, texts = names(store)
        assert "one" in datasets or texts == ["two"]
        capt.store_drop(store=str(store.path), dataset="one")
        assert names(store) == (["two"], ["two"])
        add_dataset(store, "one", range(8))
        add_captions(store, "one", range(8))
    assert verify(store.path).is_healthy
    assert kills == KILLS
