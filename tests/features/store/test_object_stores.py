"""Stores in buckets behave like stores in directories, on local S3 and GCS servers."""

import multiprocessing
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import capt
from features.io.atomic_files import temporary_path, write
from features.io.cache_paths import cache_root
from features.io.locations import ObjectPath, parse_location
from features.store import Store, create_store, open_store
from features.store.commit_log import CommitLog
from features.store.leases import current_leases, expired_leases, is_busy, lease, table_name
from features.store.verification import verify
from schemas.errors import CaptError, CorruptFileError, StoreError
from tests.features.buckets import BUCKET, bucket
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
from tests.features.store.test_commit_log import append_many

CONFIG = feature_config("tfrecord")


@pytest.fixture(scope="module", params=["s3", "gs"])
def scheme(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with bucket(request.param, tmp_path_factory.mktemp("mirror")):
        yield request.param


@pytest.fixture
def store(scheme: str, request: pytest.FixtureRequest) -> Store:
    """An empty store of the test's own."""
    return create_store(f"{scheme}://{BUCKET}/stores/{request.node.originalname}")


def in_processes(*calls: tuple[object, ...]) -> None:
    """Call functions with arguments, each in a process of its own, all at once."""
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=call[0], args=call[1:]) for call in calls]  # type: ignore[arg-type]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0


def test_concurrent_processes_lose_no_commit(store: Store) -> None:
    root = store.dataset_root("raced")
    names = [[f"{worker}-{number}" for number in range(10)] for worker in range(3)]
    in_processes(*((append_many, root, some) for some in names))
    assert len(CommitLog(root).entries()) == 30
    assert {one.files["catalog"].path for one in CommitLog(root).live()} == {
        f"c/{name}.parquet" for some in names for name in some
    }


def test_a_store_in_a_bucket_can_be_read(store: Store) -> None:
    add_features(store, CONFIG, range(40), shards=4)
    add_dataset(store, "coco", range(40))
    add_captions(store, "coco", range(40))
    shutil.rmtree(cache_root() / "files")
    opened = capt.open_store(str(store.path))
    assert np.array_equal(features_of(opened, CONFIG, range(40)), expected_features(range(40)))
    assert len(opened.dataset("coco").catalog()) == len(opened.caption_tables()[0].captions()) == 40
    assert opened.caption_tables()[0].transform_path.is_dir()
    assert len(list(opened.feature_tables()[0].record_batches(16))) == 3
    found = verify(store.path)
    assert (found.is_healthy, found.rows, found.orphaned) == (True, 80, ())


def test_shards_are_downloaded_on_first_use_or_all_at_once(store: Store) -> None:
    add_features(store, CONFIG, range(64), shards=8)
    shutil.rmtree(cache_root() / "files")
    table = open_store(store.path).feature_tables()[0]
    positions = np.arange(0, 64, 16)
    here = cache_root() / "files"
    table.ensure_local(positions)
    came = list(here.rglob("*.tfrecord"))
    assert 1 < len(came) < 8
    table.read(positions)
    assert list(here.rglob("*.tfrecord")) == came
    table.read(np.arange(64))
    assert len(list(here.rglob("*.tfrecord"))) == 8


def test_readers_and_verification_report_corrupt_objects(store: Store) -> None:
    manifest = add_features(store, CONFIG, range(8))
    data = manifest.shards[0].data
    path = store.feature_table_root(CONFIG) / data.path
    write(path, b"x" + path.read_bytes()[1:])
    shutil.rmtree(cache_root() / "files")
    with pytest.raises(CorruptFileError, match=f"expected SHA-256 {data.sha256}, got "):
        features_of(open_store(store.path), CONFIG, range(8))
    found = verify(store.path)
    assert [file.path for file in found.corrupt] == [path.relative_to(store.path).as_posix()]
    path.unlink()
    assert verify(store.path).missing == (path.relative_to(store.path).as_posix(),)
    with pytest.raises(CorruptFileError, match="a committed file is missing"):
        features_of(open_store(store.path), CONFIG, range(8))


def test_a_compacted_bucket_equals_one_written_in_one_run(store: Store, tmp_path: Path) -> None:
    for first in (0, 20):
        add_features(store, CONFIG, range(first, first + 20))
    add_dataset(store, "coco", range(40))
    compacted = capt.store_compact(store=str(store.path), num_shards=4)
    assert (compacted["merged"], compacted["rows"], compacted["shards"]) == (2, 40, 4)
    whole = new_store(tmp_path / "whole")
    add_features(whole, CONFIG, range(40), shards=4)
    assert contents(store.feature_table_root(CONFIG)) == contents(whole.feature_table_root(CONFIG))
    assert not list((store.path / "work").iterdir())
    collected = capt.store_gc(store=str(store.path), older_than="0s")
    assert collected["files"] == 4
    assert len(list(store.feature_table_root(CONFIG).glob("**/*.tfrecord"))) == 4
    assert verify(store.path).is_healthy
    assert np.array_equal(features_of(open_store(store.path), CONFIG, range(40)), expected_features(range(40)))


def add_many(store: Store, first: int) -> None:
    for number in range(first, first + 40, 10):
        add_features(store, CONFIG, range(number, number + 10))


def compact_often(store: Store) -> None:
    for _ in range(4):
        capt.store_compact(store=str(store.path))


@pytest.mark.slow
def test_concurrent_writers_and_compaction_lose_nothing(store: Store) -> None:
    add_dataset(store, "coco", range(80))
    add_features(store, CONFIG, range(5))
    in_processes((add_many, store, 0), (add_many, store, 40), (compact_often, store))
    assert np.array_equal(features_of(open_store(store.path), CONFIG, range(80)), expected_features(range(80)))
    assert verify(store.path).is_healthy


def test_uploaded_objects_without_a_commit_are_kept(store: Store) -> None:
    add_features(store, CONFIG, range(4))
    orphan = store.feature_table_root(CONFIG) / "0123456789abcdef" / "features-00000-of-00001.aaaaaaaa.tfrecord"
    write(orphan, b"rows")
    half_written = temporary_path(orphan)
    half_written.write_bytes(b"row")
    assert capt.store_gc(store=str(store.path), older_than="0s")["paths"] == []
    assert orphan.exists()
    assert half_written.exists()
    os.utime(half_written, (1000, 1000))
    capt.store_gc(store=str(store.path), older_than="0s")
    assert not half_written.exists()


def test_a_dataset_is_dropped(store: Store) -> None:
    add_dataset(store, "coco", range(4))
    add_captions(store, "coco", range(4))
    assert capt.store_drop(store=str(store.path), dataset="coco")["images"] == 4
    assert (open_store(store.path).datasets(), open_store(store.path).caption_tables()) == ([], [])


def test_leases_are_visible_to_others_and_expire(store: Store) -> None:
    table = table_name(store.path, store.feature_table_root(CONFIG))
    with lease(store.path, "prepare", {table: ()}, seconds=60):
        assert is_busy(store.path, table, "prepare")
    assert current_leases(store.path) == []
    with lease(store.path, "prepare", {table: ()}, seconds=3) as path:
        first, end = path.stat().st_mtime_ns, time.monotonic() + 30
        while path.stat().st_mtime_ns == first and time.monotonic() < end:
            time.sleep(0.1)
        assert path.stat().st_mtime_ns > first
        assert len(current_leases(store.path)) == 1
        data = path.read_bytes()
    path.put(data)  # type: ignore[attr-defined]
    ends = path.stat().st_mtime + 3
    assert expired_leases(store.path, ends - 0.5) == []
    assert expired_leases(store.path, ends) == [path]


def test_a_missing_store_is_an_error(scheme: str) -> None:
    with pytest.raises(StoreError, match="the store does not exist"):
        open_store(f"{scheme}://{BUCKET}/stores/none")
    other = parse_location(f"{scheme}://{BUCKET}/stores/other")
    assert isinstance(other, ObjectPath)
    (other / "file").put(b"x")
    with pytest.raises(StoreError, match="not a capt store"):
        create_store(other)
    with pytest.raises(CaptError, match="the bucket does not exist"):
        create_store(f"{scheme}://no-such-bucket/store")
