"""The local cache has verified copies within its size, and keeps those in use."""

import hashlib
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from features.io.cache import LocalCache, fetch_files, local_cache
from features.io.cache_paths import cache_path
from features.io.locations import ObjectPath, parse_location
from schemas.errors import CaptError, CorruptFileError, UsageError
from tests.features.buckets import BUCKET, bucket
from tests.features.faults import Faults

SIZE = 100_000

Wanted = list[tuple[ObjectPath, str]]


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faults]:
    with bucket("s3", tmp_path_factory.mktemp("cache")) as found:
        yield found


@pytest.fixture
def wanted(faults: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wanted:
    """Six objects of one size with their SHA-256, and an empty cache."""
    monkeypatch.setenv("CAPT_CACHE_DIR", str(tmp_path))
    root = parse_location(f"s3://{BUCKET}/{tmp_path.name}")
    made = []
    for number in range(6):
        data, path = os.urandom(SIZE), root / f"{number}.tfrecord"
        assert isinstance(path, ObjectPath)
        path.put(data)
        made.append((path, hashlib.sha256(data).hexdigest()))
    faults.plan([])
    return made


def cached(wanted: Wanted) -> list[int]:
    """The numbers of the objects that have a copy."""
    return [number for number, (path, _) in enumerate(wanted) if cache_path(str(path), "files").exists()]


def count_gets(faults: Faults, path: ObjectPath) -> int:
    return sum(one.startswith("GET") and path.name in one for one in faults.seen)


def test_an_object_is_downloaded_and_verified_once(wanted: Wanted, faults: Faults) -> None:
    path, sha256 = wanted[0]
    local = local_cache().fetch(path, sha256)
    assert hashlib.sha256(local.read_bytes()).hexdigest() == sha256
    faults.plan([])
    assert local_cache().fetch(path, sha256) == local
    assert LocalCache(local.parents[4], 10 * SIZE).fetch(path, sha256) == local
    assert faults.seen == []


def test_a_corrupt_copy_is_downloaded_again_and_a_corrupt_object_is_an_error(wanted: Wanted, tmp_path: Path) -> None:
    path, sha256 = wanted[0]
    local = local_cache().fetch(path, sha256)
    local.write_bytes(b"x" + local.read_bytes()[1:])
    assert hashlib.sha256(LocalCache(tmp_path, 10 * SIZE).fetch(path, sha256).read_bytes()).hexdigest() == sha256
    with pytest.raises(CorruptFileError, match=f"expected SHA-256 {'0' * 64}, got {wanted[1][1]}"):
        local_cache().fetch(wanted[1][0], "0" * 64)
    assert cached(wanted) == [0]
    assert not cache_path(str(wanted[1][0]), "hashes").exists()
    wanted[2][0].unlink()
    with pytest.raises(FileNotFoundError):
        local_cache().fetch(*wanted[2])


def test_parallel_fetches_download_each_object_once(wanted: Wanted, faults: Faults) -> None:
    sizes: list[int] = []
    threads = [threading.Thread(target=fetch_files, args=(wanted, sizes.append)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cached(wanted) == list(range(6))
    assert [count_gets(faults, path) for path, _ in wanted] == [1] * 6
    assert sizes == [SIZE] * 18


def test_the_least_recently_used_file_is_evicted_first(wanted: Wanted, tmp_path: Path) -> None:
    for number in (0, 1, 2):
        fetch_in_process(tmp_path, wanted[number], 3 * SIZE)
    os.utime(cache_path(str(wanted[0][0]), "files"))
    fetch_in_process(tmp_path, wanted[3], 3 * SIZE)
    assert cached(wanted) == [0, 2, 3]


def fetch_in_process(root: Path, one: tuple[ObjectPath, str], limit: int) -> None:
    """Fetches in a process that ends."""
    process = multiprocessing.get_context("spawn").Process(target=fetch, args=(root, [one], limit))
    process.start()
    process.join(60)
    assert process.exitcode == 0


def fetch(root: Path, some: Wanted, limit: int, sender: Connection | None = None) -> None:
    made = LocalCache(root, limit)
    for one in some:
        made.fetch(*one)
    if sender:
        sender.send("fetched")
        time.sleep(600)


def test_only_files_that_no_living_process_uses_are_evicted(wanted: Wanted, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=fetch, args=(tmp_path, wanted[:2], 3 * SIZE, sender))
    process.start()
    try:
        assert receiver.poll(60)
        own = LocalCache(tmp_path, 3 * SIZE)
        own.fetch(*wanted[2])
        with pytest.raises(CaptError, match="leave no room") as caught:
            own.fetch(*wanted[3])
        assert "CAPT_CACHE_SIZE" in str(caught.value)
        assert cached(wanted) == [0, 1, 2]
    finally:
        process.kill()
        process.join()
    own.fetch(*wanted[3])
    assert 2 in cached(wanted)
    assert 3 in cached(wanted)
    assert len(cached(wanted)) == 3


def test_a_killed_fetch_leaves_complete_files_and_the_next_one_resumes(
    wanted: Wanted, faults: Faults, tmp_path: Path
) -> None:
    # The download of the fourth object never ends.
    faults.plan(["busy"] * 1000, lambda method, target: method == "GET" and "3.tfrecord" in target)
    process = multiprocessing.get_context("spawn").Process(target=fetch, args=(tmp_path, wanted, 10 * SIZE))
    process.start()
    end = time.monotonic() + 60
    while not count_gets(faults, wanted[3][0]) and time.monotonic() < end:
        time.sleep(0.02)
    process.kill()
    process.join()
    assert cached(wanted) == [0, 1, 2]
    (left,) = tmp_path.rglob(".aside-*")
    faults.plan([])
    fetch(tmp_path, wanted, 10 * SIZE)
    assert [count_gets(faults, path) for path, _ in wanted] == [0, 0, 0, 1, 1, 1]
    assert left.exists()
    made = LocalCache(tmp_path, 7 * SIZE)
    assert made._evict_until(SIZE)
    assert not left.exists()


@pytest.mark.parametrize(("text", "size"), [("200GB", 200 * 10**9), ("1.5 tb", 15 * 10**11), ("1000", 1000)])
def test_cache_sizes_have_units(monkeypatch: pytest.MonkeyPatch, text: str, size: int) -> None:
    monkeypatch.setenv("CAPT_CACHE_SIZE", text)
    assert local_cache()._max_bytes == size
    monkeypatch.setenv("CAPT_CACHE_SIZE", "plenty")
    with pytest.raises(UsageError, match="CAPT_CACHE_SIZE"):
        local_cache()
