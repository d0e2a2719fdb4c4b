"""Paths in buckets are read and written on real servers on loopback, through faults of the network."""

import multiprocessing
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from features.io import retries
from features.io.atomic_files import (
    atomic_write,
    hash_file,
    hold_local_copy,
    put_if_absent,
    replace_atomically,
    temporary_path,
    write,
)
from features.io.locations import ObjectPath, parse_location
from schemas.errors import CaptError, UsageError
from tests.features.buckets import BUCKET, bucket
from tests.features.faults import Faults


@pytest.fixture(scope="module", params=["s3", "gs"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Faults]]:
    with bucket(request.param, tmp_path_factory.mktemp("cache")) as faults:
        yield request.param, faults


@pytest.fixture
def root(served: tuple[str, Faults], request: pytest.FixtureRequest) -> ObjectPath:
    """A directory for this test only."""
    path = parse_location(f"{served[0]}://{BUCKET}/{request.node.originalname}")
    assert isinstance(path, ObjectPath)
    return path


@pytest.fixture
def faults(served: tuple[str, Faults], monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """The faults of the network; waits are short."""
    monkeypatch.setattr(retries, "BASE_SECONDS", 0.01)
    yield served[1]
    served[1].plan([])


def test_a_uri_is_a_path_of_its_parts(root: ObjectPath) -> None:
    inner = root / "log" / "00000001.json"
    assert str(inner) == f"{root}/log/00000001.json"
    assert str(root).startswith(f"{root.parts[0]}//{BUCKET}/")
    assert (inner.name, inner.stem, inner.parent, inner.parents[1]) == ("00000001.json", "00000001", root / "log", root)
    assert inner.relative_to(root).as_posix() == "log/00000001.json"
    assert parse_location(str(inner)) == inner.absolute() == inner
    with pytest.raises(TypeError, match="not a local file"):
        os.stat(inner)  # noqa: PTH116
    with pytest.raises(UsageError, match=r"contains \.\."):
        parse_location(f"{root}/../other")


def test_prefixes_of_keys_are_directories(root: ObjectPath) -> None:
    assert (root.exists(), root.is_dir(), list(root.iterdir())) == (False, False, [])
    for name in ("a/log/1.json", "a/log/2.json", "b/log/1.json", "b/other", "top ?#é"):
        (root / name).put(name.encode())
    (root.parent / f"{root.name}-not").put(b"x")
    assert (root.exists(), root.is_dir(), root.is_file()) == (True, True, False)
    assert ((root / "b/other").is_file(), (root / "b/othe").exists()) == (True, False)
    assert [path.name for path in root.iterdir()] == ["a", "b", "top ?#é"]
    assert [str(path.parent.name) for path in root.glob("*/log")] == ["a", "b"]
    assert [path.name for path in (root / "a/log").glob("*.json")] == ["1.json", "2.json"]
    assert len(list(root.glob("**/*.json"))) == 3
    assert (root / "top ?#é").read_bytes() == "top ?#é".encode()
    (root / "b/other").unlink()
    (root / "b/other").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        (root / "b/other").unlink()
    root.remove_tree()
    assert not root.exists()


@pytest.mark.slow
def test_listings_of_several_pages_are_complete(root: ObjectPath) -> None:
    names = [f"{number:04d}" for number in range(1003)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: (root / name).put(b""), names))
    assert [path.name for path in root.iterdir()] == [path.name for path, _ in root.list_tree()] == names


def test_a_large_file_is_uploaded_and_downloaded_unchanged(root: ObjectPath, tmp_path: Path) -> None:
    data = os.urandom(20 << 20)
    with atomic_write(root / "large") as temporary:
        temporary.write_bytes(data)
    with hold_local_copy(root / "large") as here:
        assert here.read_bytes() == data
    assert not here.exists()
    assert (root / "large").stat().st_size == len(data)


def test_only_the_first_conditional_put_succeeds(root: ObjectPath) -> None:
    assert put_if_absent(root / "entry", b"one")
    assert not put_if_absent(root / "entry", b"two")
    assert not put_if_absent(root / "entry", b"one")
    assert (root / "entry").read_bytes() == b"one"


def win(root: Path, name: str, numbers: range) -> None:
    for number in numbers:
        if put_if_absent(root / f"{number:04d}", name.encode()):
            write(root / name / f"{number:04d}", b"")


def test_exactly_one_of_several_processes_puts_each_entry(root: ObjectPath) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=win, args=(root, name, range(40))) for name in ("one", "two", "three")]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
        assert process.exitcode == 0
    won = {name: {path.name for path in (root / name).iterdir()} for name in ("one", "two", "three")}
    assert sum(map(len, won.values())) == 40
    for name, entries in won.items():
        assert all((root / entry).read_text() == name for entry in entries)


@pytest.mark.parametrize("fate", ["reset", "busy", "lost"])
def test_small_requests_are_retried(root: ObjectPath, faults: Faults, fate: str) -> None:
    for act in (
        lambda: (root / fate).put(b"data"),
        lambda: (root / fate).read_bytes() == b"data" or pytest.fail("other bytes"),
        (root / fate).stat,
        lambda: list(root.iterdir()),
        (root / fate).unlink,
    ):
        faults.plan([fate, fate])
        act()
        assert len(faults.seen) >= 3
    faults.plan([fate])
    assert put_if_absent(root / fate, b"data") or root.parts[0] == "gs:"
    assert (root / fate).read_bytes() == b"data"


def test_an_incomplete_body_is_retried(root: ObjectPath, faults: Faults) -> None:
    (root / "small").put(b"0123456789" * 100)
    faults.plan(["half", "half"], lambda method, _: method == "GET")
    assert (root / "small").read_bytes() == b"0123456789" * 100


@pytest.mark.parametrize("fate", ["reset", "busy", "lost", "half"])
def test_uploads_and_downloads_are_retried(root: ObjectPath, faults: Faults, fate: str, tmp_path: Path) -> None:
    data = os.urandom(9 << 20)
    temporary = temporary_path(root / fate)
    temporary.write_bytes(data)
    # The client of uploads waits itself after each answer of a busy service.
    fates = [fate] if fate == "busy" else [fate, fate]
    if fate != "half":
        faults.plan(fates, lambda method, _: method in ("PUT", "POST"))
    replace_atomically(temporary, root / fate)
    assert faults.fates == []
    faults.plan(fates, lambda method, _: method == "GET")
    with hold_local_copy(root / fate) as here:
        assert here.read_bytes() == data
    assert faults.fates == []
    assert hash_file(root / fate) == hash_file(write_local(tmp_path / "same", data))


def write_local(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_service_that_stays_busy_fails_after_all_attempts(
    root: ObjectPath, faults: Faults, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults.plan(["busy"] * 1000)
    with pytest.raises(CaptError, match="cannot be reached") as caught:
        (root / "busy").read_bytes()
    assert "\n" not in str(caught.value)
    assert len(faults.seen) == retries.ATTEMPTS


def test_waits_are_random_below_a_bound_that_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(retries.time, "sleep", waits.append)

    def fail() -> None:
        raise retries.TransientError("busy")

    for _ in range(50):
        with pytest.raises(CaptError):
            retries.retry(fail, "s3://bucket/key")
    by_attempt = [waits[attempt :: retries.ATTEMPTS - 1] for attempt in range(retries.ATTEMPTS - 1)]
    for attempt, drawn in enumerate(by_attempt):
        bound = min(retries.MAX_SECONDS, retries.BASE_SECONDS * 2**attempt)
        assert max(drawn) <= bound
        assert max(drawn) > 0.8 * bound
        assert min(drawn) < 0.2 * bound


@pytest.mark.parametrize(("scheme", "module", "extra"), [("s3", "boto3", "s3"), ("gs", "google.cloud.storage", "gcs")])
def test_a_missing_client_is_wrong_usage(monkeypatch: pytest.MonkeyPatch, scheme: str, module: str, extra: str) -> None:
    import google.cloud

    monkeypatch.delattr(google.cloud, "storage", raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError, match=rf"pip install 'capt\[{extra}\]'"):
        parse_location(f"{scheme}://a-bucket-of-nobody/store").exists()


def test_a_missing_object_is_requested_once(root: ObjectPath, faults: Faults) -> None:
    faults.plan([])
    with pytest.raises(FileNotFoundError):
        (root / "nothing").read_bytes()
    assert len(faults.seen) == 1
    with pytest.raises(CaptError, match="the bucket does not exist"):
        parse_location(f"{root.parts[0]}//no-such-bucket/x").put(b"x")  # type: ignore[attr-defined]
