"""Garbage collection deletes nothing that a job has come to reference since the collection began."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import capt
from features.store import Store, held_leases, leases, open_store
from features.store.commit_log import CommitLog
from features.store.compaction import compact_table
from features.store.garbage_collection import _Collector
from features.store.held_leases import HeldLease
from features.store.leases import current_leases, is_writing, lease, lease_for_deletion, table_name
from schemas.errors import StoreError
from tests.features.store.stores import (
    add_captions,
    add_dataset,
    add_features,
    contents,
    expected_features,
    feature_config,
    features_of,
    new_store,
)
from tests.workflows.test_model_registry import facts, promote, run_name
from workflows.model_registry import KEPT, RegisteredModel

DAY = 86_400
CONFIG = feature_config()

Meanwhile = Callable[[Callable[[], object]], None]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path / "store")


def make_old(store: Store, seconds: float = 3 * DAY) -> None:
    """Let time pass: every file becomes so much older."""
    for path in store.path.rglob("*"):
        if path.is_file():
            os.utime(path, (path.stat().st_mtime - seconds,) * 2)


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Meanwhile:
    """Has a job run whole once a collection has read the logs and before it deletes anything."""
    alone = _Collector._with_lease

    def during(job: Callable[[], object]) -> None:
        def first_job(collector: _Collector, *arguments: Any) -> None:
            monkeypatch.setattr(_Collector, "_with_lease", alone)
            job()
            alone(collector, *arguments)

        monkeypatch.setattr(_Collector, "_with_lease", first_job)

    return during


def test_a_catalog_that_a_job_commits_again_meanwhile_stays(store: Store, meanwhile: Meanwhile) -> None:
    for count in (20, 10):
        add_dataset(store, "photos", range(count))
    make_old(store)
    meanwhile(lambda: add_dataset(store, "photos", range(20)))
    capt.store_gc(store=str(store.path))
    assert len(open_store(store.path).dataset("photos").catalog()) == 20


def test_shards_that_a_job_commits_again_meanwhile_stay(store: Store, meanwhile: Meanwhile) -> None:
    add_features(store, CONFIG, range(20))
    add_features(store, CONFIG, range(20, 30))
    add_dataset(store, "photos", range(20))
    compact_table(open_store(store.path), CONFIG.fingerprint)
    make_old(store)
    meanwhile(lambda: add_features(store, CONFIG, range(20, 30)))
    capt.store_gc(store=str(store.path))
    assert np.array_equal(features_of(open_store(store.path), CONFIG, range(30)), expected_features(range(30)))


def test_captions_that_a_job_commits_again_meanwhile_stay(store: Store, meanwhile: Meanwhile) -> None:
    add_dataset(store, "photos", range(4))
    add_captions(store, "photos", range(4))
    capt.store_drop(store=str(store.path), dataset="photos")
    make_old(store)
    meanwhile(lambda: add_captions(store, "photos", range(4)))
    capt.store_gc(store=str(store.path))
    assert len(open_store(store.path).caption_tables()[0].captions()) == 4
    assert open_store(store.path).caption_tables()[0].transform_path.is_dir()


def test_a_run_that_becomes_champion_again_meanwhile_stays(store: Store, meanwhile: Meanwhile) -> None:
    model = RegisteredModel(store, "shapes")
    for number in range(1, KEPT + 3):
        promote(model, number)
    make_old(store)
    meanwhile(lambda: model.promote(facts("chosen", 1, 1)))
    capt.store_gc(store=str(store.path))
    assert model.champion == run_name(1)
    assert (model.run_path(run_name(1)) / "run.json").read_text() == "run 1"
    assert set(contents(model.root)) >= {f"runs/{run_name(1)}/run.json"}


# === Leases ===


def test_of_a_writer_and_a_collection_that_meet_the_writer_goes_first(store: Store) -> None:
    with (
        lease(store.path, "change", {"datasets/photos": ()}),
        lease_for_deletion(store.path, "datasets/photos") as held,
        lease_for_deletion(store.path, "datasets/others") as other,
    ):
        assert held is None
        assert other is not None


def test_a_writer_waits_until_a_collection_of_its_table_has_ended(store: Store) -> None:
    events: list[str] = []
    waiting = threading.Event()

    def commit() -> None:
        with lease(store.path, "change", {"datasets/photos": ()}):
            events.append("committed")

    thread = threading.Thread(target=commit)
    with pytest.MonkeyPatch.context() as patch, lease_for_deletion(store.path, "datasets/photos") as held:
        patch.setattr(leases, "pause", lambda: (waiting.set(), time.sleep(0.01)))
        assert held
        thread.start()
        assert waiting.wait(10)
        events.append("collected")
    thread.join(10)
    assert events == ["collected", "committed"]


def test_a_lease_that_ran_out_commits_nothing_and_is_not_renewed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    add_dataset(store, "photos", range(4))
    root = store.dataset_root("photos")
    log, manifest = CommitLog(root), CommitLog(root).live()[0]
    with lease(store.path, "change", {table_name(store.path, root): ()}, seconds=600) as path:
        later = held_leases.clock() + 599
        monkeypatch.setattr(held_leases, "clock", lambda: later)
        with pytest.raises(StoreError):
            log.append(manifest.model_copy(update={"replaces": (manifest.digest,)}))
        before = path.stat().st_mtime_ns
        for held in held_leases.held_leases():
            held.renew()
        assert path.stat().st_mtime_ns == before
    assert log.last() == 1


def test_a_collection_that_was_suspended_deletes_nothing_more(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for count in (20, 10):
        add_dataset(store, "photos", range(count))
    now = HeldLease.now
    later = held_leases.clock() + 10_000

    def suspended(held: HeldLease) -> float:
        moment = now(held)
        if "datasets" in str(held.tables):
            monkeypatch.setattr(held_leases, "clock", lambda: later)
        return moment

    monkeypatch.setattr(HeldLease, "now", suspended)
    with pytest.raises(StoreError):
        capt.store_gc(store=str(store.path), older_than="0s")
    assert len(list(store.dataset_root("photos").glob("*/catalog.parquet"))) == 2


def test_corrupt_files_stay_while_another_job_may_write_them_again(store: Store) -> None:
    from features.store.repair import remove_corrupt

    manifest = add_features(store, CONFIG, range(4))
    root = store.feature_table_root(CONFIG)
    path = root / manifest.shards[0].data.path
    add_dataset(store, "photos", ())
    compact_table(open_store(store.path), CONFIG.fingerprint)
    assert manifest.digest not in {one.digest for one in CommitLog(root).live()}
    path.write_bytes(b"damaged")
    other = threading.Thread(target=lambda: _hold(store, root, done))
    done = threading.Event()
    other.start()
    while not is_writing(store.path, table_name(store.path, root)):
        time.sleep(0.01)
    remove_corrupt(root, {manifest.shards[0].data.path})
    assert path.exists()
    done.set()
    other.join()
    remove_corrupt(root, {manifest.shards[0].data.path})
    assert not path.exists()


def _hold(store: Store, root: Path, done: threading.Event) -> None:
    with lease(store.path, "prepare", {table_name(store.path, root): ()}):
        done.wait(20)


# === Every command that commits holds a lease ===


@pytest.fixture
def bare_commits(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The log entries that were put while no writer's lease named their table."""
    bare: list[Path] = []
    put = CommitLog._commit

    def checked(log: CommitLog, *arguments: Any) -> str | None:
        root = log._root
        if not is_writing(root.parent.parent, table_name(root.parent.parent, root)):
            bare.append(root)
        return put(log, *arguments)

    monkeypatch.setattr(CommitLog, "_commit", checked)
    return bare


def test_every_command_that_commits_holds_a_lease(tmp_path: Path, bare_commits: list[Path]) -> None:
    from PIL import Image

    (tmp_path / "images").mkdir()
    for number in range(4):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "images" / f"{number}.png")
    lines = ["image,caption,split", *(f"{number}.png,an image,train" for number in range(4))]
    (tmp_path / "captions.csv").write_text("\n".join(lines))
    given = {"store": str(tmp_path / "store"), "dataset_type": "csv", "annotations": (str(tmp_path / "captions.csv"),)}
    images = {"images": (str(tmp_path / "images"),), "extractor": "pixels", "height": 8, "width": 8}
    capt.prepare_features(**given, **images)
    capt.prepare_captions(**given)
    (shard,) = (tmp_path / "store").glob("features/*/*/*.tfrecord")
    shard.unlink()
    capt.prepare_features(**given, **images)
    capt.store_compact(store=given["store"], num_shards=2)
    model = RegisteredModel(open_store(given["store"]), "shapes")
    promote(model, 1)
    promote(model, 2)
    model.decide(facts("rejected", 3, 2))
    capt.models_rollback(store=given["store"])
    capt.models_promote(store=given["store"], run=run_name(2))
    capt.store_drop(store=given["store"], dataset="csv")
    assert bare_commits == []
    assert current_leases(tmp_path / "store") == []
    assert len(CommitLog(model.root).entries()) == 5
