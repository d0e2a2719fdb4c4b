"""Lists of URLs become WebDataset shards: every record is accounted for, and killed runs resume."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import capt
from features.inputs.image_urls import DownloadLimits
from features.io.locks import LockedError, hold_lock
from features.text.lines import FailedRecord
from pipelines.datasets import open_reader
from pipelines.fetch_urls import finished_shards
from pipelines.fetch_urls.command import print_fetched
from pipelines.fetch_urls.download_queue import DownloadQueue
from pipelines.ingest.host_turns import HostLimits, HostTurns
from schemas.errors import CaptError, ExitCode, NoUsableImageError, TooManyFailuresError, UsageError
from tests.conftest import noise_image
from tests.image_server import ImageServer, answer, image_server, jpeg
from tests.pipelines.datasets.test_urls import hashes, in_csv, parquet, put

ROOT = Path(__file__).parents[3]
# Hosts of their own, so that downloads do not wait for each other.
HOSTS = [f"127.0.0.{number}" for number in range(1, 9)]


@pytest.fixture
def server() -> Iterator[ImageServer]:
    with image_server("") as server:
        yield server


def address(server: ImageServer, number: int) -> str:
    return server.url(f"/{number}.jpg", HOSTS[number % len(HOSTS)])


def fetch(root: Path, *lists: str, **options: Any) -> dict[str, Any]:
    given = {"lists": lists, "directory": root / "D", "allow_private_addresses": True, "shard_size": 4}
    result: dict[str, Any] = capt.fetch_urls(**{**given, **options})
    assert result["ok"] + result["failed"] == result["input"]
    assert sum(result["reasons"].values()) == result["failed"]
    return result


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {one.name: archive.extractfile(one).read() for one in archive.getmembers()}  # type: ignore[union-attr]


def rows(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return found


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir()) if path.suffix in (".tar", ".parquet")}


def test_records_become_samples_by_position(tmp_path: Path, server: ImageServer) -> None:
    urls = [address(server, n) for n in range(5)]
    columns = {"URL": [*urls[:4], None, urls[4]], "TEXT": ["one", "", "three", "four", "no", "five"]}
    result = fetch(tmp_path, parquet(tmp_path / "a.parquet", columns))
    assert (result["input"], result["ok"], result["reasons"], result["shards"]) == (6, 5, {"no URL": 1}, 2)
    assert (result["downloaded"], result["unusable_captions"]) == (5, 1)
    first = members(tmp_path / "D" / "00000.tar")
    assert list(first)[:4] == ["000000.jpg", "000000.txt", "000000.json", "000001.jpg"]
    assert (first["000000.jpg"], first["000000.txt"]) == (jpeg(0), b"one")
    assert json.loads(first["000000.json"]) == {
        "key": "000000",
        "url": urls[0],
        "caption": "one",
        "status": "success",
        "sha256": hashlib.sha256(jpeg(0)).hexdigest(),
        "bytes": len(jpeg(0)),
        "width": 96,
        "height": 72,
        "location": "a.parquet: row 1",
    }
    assert "000001.txt" not in first
    assert list(members(tmp_path / "D" / "00001.tar")) == ["000011.jpg", "000011.txt", "000011.json"]
    failed, ok = rows(tmp_path / "D" / "00001.parquet")
    assert (failed["key"], failed["status"], failed["reason"], failed["width"]) == ("000010", "failed", "no URL", None)
    assert (ok["key"], ok["url"], ok["captions"]) == ("000011", urls[4], ["five"])
    assert (ok["status"], ok["reason"], ok["detail"]) == ("success", "", "")


def test_the_content_decides_on_the_suffix_and_on_failure(tmp_path: Path, server: ImageServer) -> None:
    png, webp = encode("PNG"), encode("WEBP")
    bodies = [jpeg(1)[:-9], png, webp, b"<html>" + bytes(99), jpeg(2)]
    urls = [server.on(f"/{n}", answer(body=body, kind=None)) for n, body in enumerate(bodies)]
    urls += [server.on("/noai", answer(body=png, X_Robots_Tag="noai")), server.url("/gone"), "ftp://a/b"]
    expected = [None, None, None, None, hashes(3)[0], None, None, None]
    path = parquet(tmp_path / "a.parquet", {"url": urls, "text": ["x"] * 8, "md5": expected})
    result = fetch(tmp_path, path, hash_column="md5", shard_size=8)
    assert result["reasons"] == dict.fromkeys(
        ["truncated", "not an image", "hash mismatch", "robots tag", "http 404", "scheme"], 1
    )
    found = members(tmp_path / "D" / "00000.tar")
    assert {name: data for name, data in found.items() if not name.endswith(("txt", "json"))} == {
        "000001.png": png,
        "000002.webp": webp,
    }
    assert [row["reason"] for row in rows(tmp_path / "D" / "00000.parquet")][4:6] == ["hash mismatch", "robots tag"]
    assert not (tmp_path / "D" / ".unfinished").exists()
    reader = open_reader("webdataset", [str(tmp_path / "D")])
    assert len(list(reader.read_images())) == 2
    assert reader.summarize() == {"not_downloaded": {"failed": 6}}


def encode(kind: str) -> bytes:
    file = BytesIO()
    noise_image(0).save(file, kind)
    return file.getvalue()


def fetch_split_list(root: Path, server: ImageServer) -> dict[str, Any]:
    """Fetches a list with splits and several captions per row. The first image has a row in two shards."""
    columns = {
        "url": [*(address(server, n) for n in range(6)), address(server, 0)],
        "captions": [["a", "b"], ["c"], ["d"], ["e"], ["f"], [], ["g"]],
        "split": ["train", "train", "val", "train", "test", "train", "train"],
    }
    return fetch(root, parquet(root / "a.parquet", columns))


KEYS = ["train-000000", "train-000001", "train-000002", "train-000003", "train-000010", "val-000000", "test-000000"]


def test_the_shards_are_read_as_a_webdataset_with_their_splits(tmp_path: Path, server: ImageServer) -> None:
    result = fetch_split_list(tmp_path, server)
    assert (result["shards"], result["downloaded"], result["unusable_captions"]) == (4, 7, 1)
    reader = open_reader("webdataset", [str(tmp_path / "D")])
    assert {one.image_id: one.split for one in reader.read_images()} == {key: key.partition("-")[0] for key in KEYS}
    captions = [one for one in reader.read_captions() if not isinstance(one, FailedRecord)]
    assert sorted((one.image_id, one.caption) for one in captions) == sorted(
        zip([KEYS[0], KEYS[0], KEYS[1], KEYS[5], KEYS[2], KEYS[6], KEYS[4]], "abcdefg", strict=True)
    )
    columns = {"id": [7], "url": [address(server, 1)], "text": ["x"], "who": ["me"]}
    fetch(tmp_path, put(tmp_path / "b.csv", in_csv(columns)), directory=tmp_path / "E", group_column="who")
    assert (
        json.loads(members(tmp_path / "E" / "00000.tar")["000000.json"]).items() >= {"id": "7", "group": "me"}.items()
    )


@pytest.mark.slow
def test_the_shards_are_prepared(tmp_path: Path, server: ImageServer) -> None:
    fetch_split_list(tmp_path, server)
    given = {"store": str(tmp_path / "S"), "dataset_type": "webdataset"}
    size = {"extractor": "pixels", "height": 8, "width": 8}
    features = capt.prepare_features(images=[str(tmp_path / "D")], **size, **given)
    assert (features["input"], features["ok"], features["duplicate"]) == (7, 6, 1)
    captions = capt.prepare_captions(annotations=[str(tmp_path / "D")], max_failures="1", **given)
    assert (captions["input"], captions["ok"], captions["reasons"]) == (8, 7, {"no caption": 1})
    dataset = capt.open_store(tmp_path / "S").dataset("webdataset")
    assert set(dataset.catalog().column("image_id").to_pylist()) == set(KEYS)


def test_the_parquet_files_are_a_list_of_the_same_images(tmp_path: Path, server: ImageServer) -> None:
    columns = {"url": [address(server, 1), server.url("/gone"), address(server, 2)], "text": ["one", "two", "three"]}
    fetch(tmp_path, put(tmp_path / "a.csv", in_csv(columns)))
    lists = tmp_path / "D" / "00000.parquet"
    again = fetch(tmp_path, str(lists), directory=tmp_path / "E", hash_column="sha256")
    assert (again["input"], again["ok"], again["unusable_captions"]) == (3, 2, 0)
    assert (tmp_path / "E" / "00000.tar").stat().st_size == (tmp_path / "D" / "00000.tar").stat().st_size


def test_rows_of_a_shard_with_one_url_are_one_download(tmp_path: Path, server: ImageServer) -> None:
    url = address(server, 1)
    columns = {"url": [url, url, server.url("/gone"), server.url("/gone")], "text": ["one", "two", "three", "four"]}
    result = fetch(tmp_path, put(tmp_path / "a.csv", in_csv(columns)))
    assert (result["ok"], result["reasons"], result["downloaded"]) == (2, {"http 404": 2}, 1)
    assert server.requests == {"/1.jpg": 1, "/gone": 1}
    found = members(tmp_path / "D" / "00000.tar")
    assert found["000000.jpg"] == found["000001.jpg"] == jpeg(1)
    assert (found["000000.txt"], found["000001.txt"]) == (b"one", b"two")


def test_a_finished_run_downloads_nothing_again(tmp_path: Path, server: ImageServer) -> None:
    columns = {"url": [*(address(server, n) for n in range(5)), server.url("/gone")], "text": ["x"] * 6}
    path = put(tmp_path / "a.csv", in_csv(columns))
    first = fetch(tmp_path, path)
    written = files(tmp_path / "D")
    again = fetch(tmp_path, path, num_threads=3)
    assert server.requests.total() == 6
    assert (again["downloaded"], again["skipped_shards"]) == (0, 2)
    counts = ("input", "ok", "failed", "reasons", "shards", "image_bytes", "tar_bytes")
    assert [again[name] for name in counts] == [first[name] for name in counts]
    (tmp_path / "D" / "00001.tar").unlink()
    assert fetch(tmp_path, path)["downloaded"] == 1
    assert files(tmp_path / "D") == written


def test_a_killed_run_resumes_with_what_it_has_downloaded(tmp_path: Path, server: ImageServer) -> None:
    columns = {"url": [address(server, n) for n in range(24)], "text": [f"number {n}" for n in range(24)]}
    path = put(tmp_path / "a.csv", in_csv(columns))
    released = threading.Event()
    for number in range(12, 24):
        server.on(f"/{number}.jpg", partial(wait_and_answer, released, number))
    arguments = [path, str(tmp_path / "D"), "--allow-private-addresses", "--shard-size", "8", "--json"]
    command = [sys.executable, str(ROOT / "capt.py"), "fetch", "urls", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    finished = tmp_path / "D" / "00000.parquet"
    outcomes = tmp_path / "D" / ".unfinished" / "00001" / "outcomes.jsonl"
    try:
        deadline = time.monotonic() + 100
        while not (is_recorded(outcomes, 4) and finished.exists() and server.requests.total() == 24):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        process.kill()
        process.communicate()
    assert not (tmp_path / "D" / "00001.tar").exists()
    with outcomes.open("ab") as file:
        file.write(b'{"key": "0000')
    (tmp_path / "D" / ".unfinished" / "00001" / "000010").write_bytes(jpeg(0))  # As after a power failure.
    released.set()
    result = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    assert (result["input"], result["ok"], result["skipped_shards"]) == (24, 24, 1)
    assert (result["kept"], result["downloaded"]) == (3, 13)
    assert [server.requests[f"/{n}.jpg"] for n in range(24)] == [1] * 8 + [2] + [1] * 3 + [2] * 12
    fetch(tmp_path, path, shard_size=8, directory=tmp_path / "E")
    assert files(tmp_path / "D") == files(tmp_path / "E")


def is_recorded(outcomes: Path, count: int) -> bool:
    return outcomes.exists() and outcomes.read_bytes().count(b"\n") == count


def wait_and_answer(released: threading.Event, number: int, handler: BaseHTTPRequestHandler) -> None:
    released.wait(100)
    answer(body=jpeg(number))(handler)


def test_a_full_disk_ends_the_run_and_the_next_one_resumes(
    tmp_path: Path, server: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = {"url": [address(server, n) for n in range(6)], "text": ["x"] * 6}
    path = put(tmp_path / "a.csv", in_csv(columns))
    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "addfile", raise_full_disk)
        with pytest.raises(CaptError, match="no space"):
            fetch(tmp_path, path)
    assert not files(tmp_path / "D")
    result = fetch(tmp_path, path)
    assert (result["ok"], result["kept"] + result["downloaded"]) == (6, 6)
    assert result["kept"] >= 4
    assert not [one for one in (tmp_path / "D").iterdir() if one.name.startswith(".aside-")]


def raise_full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_shard_without_any_answer_is_not_written(tmp_path: Path) -> None:
    urls = [f"http://127.0.{n}.1/x.jpg" for n in range(100)]
    path = put(tmp_path / "a.csv", in_csv({"url": urls, "text": ["x"] * 100}))
    with pytest.raises(CaptError, match="100 private address"):
        fetch(tmp_path, path, allow_private_addresses=False, shard_size=100)
    assert not files(tmp_path / "D")
    with pytest.raises(NoUsableImageError) as caught:
        fetch(tmp_path, path, allow_private_addresses=False, shard_size=19, directory=tmp_path / "E")
    assert caught.value.summary is not None
    assert (caught.value.summary["failed"], caught.value.summary["shards"]) == (100, 6)
    assert caught.value.exit_code == ExitCode.TOO_MANY_FAILURES


def test_a_network_that_goes_down_writes_no_further_shard(
    tmp_path: Path, server: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = [f"http://127.0.1.{n}:1/x.jpg" for n in range(1, 31)]
    urls = [address(server, 1), *refused, "ftp://a/b"]
    path = put(tmp_path / "a.csv", in_csv({"url": urls, "text": ["x"] * 32}))
    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "addfile", raise_full_disk)
        with pytest.raises(CaptError, match="no space"):
            fetch(tmp_path, path, shard_size=50)
    with pytest.raises(CaptError, match="may pass"):
        fetch(tmp_path, path, shard_size=50)
    without = put(tmp_path / "b.csv", in_csv({"url": urls[1:], "text": ["x"] * 31}))
    with pytest.raises(CaptError, match="may pass"):
        fetch(tmp_path, without, shard_size=50, directory=tmp_path / "E")
    assert not files(tmp_path / "D")
    assert not files(tmp_path / "E")


def test_a_host_that_is_down_ends_no_run(tmp_path: Path) -> None:
    urls = [f"http://127.0.1.1:1/{n}.jpg" for n in range(30)]
    path = put(tmp_path / "a.csv", in_csv({"url": urls, "text": ["x"] * 30}))
    with pytest.raises(NoUsableImageError):
        fetch(tmp_path, path, shard_size=50)
    assert len(files(tmp_path / "D")) == 2


def test_a_tar_that_was_deleted_takes_its_parquet_file_along(
    tmp_path: Path, server: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path / "a.csv", in_csv({"url": [address(server, 1)], "text": ["x"]}))
    fetch(tmp_path, path)
    (tmp_path / "D" / "00000.tar").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(finished_shards.pq, "write_table", raise_full_disk)
        with pytest.raises(CaptError, match="no space"):
            fetch(tmp_path, path)
    assert list(files(tmp_path / "D")) == ["00000.tar"]
    assert fetch(tmp_path, path)["kept"] == 1


def test_a_wrong_option_leaves_the_directory_free(tmp_path: Path, server: ImageServer) -> None:
    path = put(tmp_path / "a.csv", in_csv({"url": [address(server, 1)], "text": ["x"]}))
    with pytest.raises(UsageError):
        fetch(tmp_path, path, hash_column=["nope"])
    assert fetch(tmp_path, path)["ok"] == 1
    unnamed = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.csv")
    shutil.copy(path, unnamed)
    with pytest.raises(UsageError, match="not UTF-8"):
        fetch(tmp_path, unnamed, directory=tmp_path / "G")
    Path(unnamed).unlink()
    with pytest.raises(UsageError, match="in the directory of the lists"):
        fetch(tmp_path, str(tmp_path), directory=tmp_path / "F")


def test_more_failures_than_allowed_have_their_exit_code(tmp_path: Path, server: ImageServer) -> None:
    columns = {"url": [address(server, 1), server.url("/gone")], "text": ["x"] * 2}
    path = put(tmp_path / "a.csv", in_csv(columns))
    with pytest.raises(TooManyFailuresError) as caught:
        fetch(tmp_path, path, max_failures="40%")
    assert caught.value.summary is not None
    assert caught.value.summary["reasons"] == {"http 404": 1}
    assert len(files(tmp_path / "D")) == 2


@pytest.mark.parametrize(
    "options", [{"shard_size": 5}, {"ignore_robots_tag": True}, {"max_image_pixels": 9}, {"caption_column": ["url"]}]
)
def test_a_directory_of_another_run_is_refused(options: dict[str, Any], finished: Path) -> None:
    written = files(finished / "D")
    with pytest.raises(UsageError, match=f"another --{next(iter(options)).replace('_', '-')}"):
        fetch(finished, str(finished / "a.csv"), **options)
    put(finished / "b.csv", in_csv({"url": ["http://127.0.0.1/x"], "text": ["x"]}))
    with pytest.raises(UsageError, match="other lists"):
        fetch(finished, str(finished / "b.csv"))
    assert files(finished / "D") == written


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run over one list, without an image."""
    root = tmp_path_factory.mktemp("finished")
    with pytest.raises(NoUsableImageError):
        fetch(root, put(root / "a.csv", in_csv({"url": ["ftp://a/b"], "text": ["x"]})))
    return root


def test_a_changed_shard_is_refused(tmp_path: Path, finished: Path) -> None:
    copied = Path(shutil.copytree(finished / "D", tmp_path / "D"))
    (copied / "00000.tar").write_bytes(b"short")
    with pytest.raises(CaptError, match=r"Delete 00000\.tar and 00000\.parquet"):
        fetch(tmp_path, str(finished / "a.csv"))
    (copied / "00000.parquet").write_bytes(b"short")
    with pytest.raises(CaptError, match="not the one that was written"):
        fetch(tmp_path, str(finished / "a.csv"))


def test_wrong_paths_are_wrong_usage(tmp_path: Path) -> None:
    path = put(tmp_path / "a.csv", in_csv({"url": ["http://127.0.0.1/x"], "text": ["x"]}))
    put(tmp_path / "other" / "notes.txt", b"x")
    for lists, directory, problem in (
        ([path], path, "a file, not a directory"),
        ([path], f"{path}/D", "cannot be created"),
        ([path], tmp_path / "other", "other files"),
        ([path], "s3://bucket/D", "must be local"),
        ([tmp_path / "none.csv"], tmp_path / "D", "no such file"),
        ([put(tmp_path / "c.csv", b"a,b\n1,2\n")], tmp_path / "D2", "no column"),
    ):
        with pytest.raises(UsageError, match=problem):
            capt.fetch_urls(lists=lists, directory=directory)
    with pytest.raises(UsageError, match="--caption-field"):
        capt.fetch_urls(lists=[path], directory=tmp_path / "D", caption_field=["txt"])
    with pytest.raises(CaptError, match="no rows"):
        capt.fetch_urls(lists=[put(tmp_path / "d.csv", b"url,text\n")], directory=tmp_path / "D3")
    with hold_lock(tmp_path / "D" / ".fetching.lock", "downloading"), pytest.raises(LockedError):
        capt.fetch_urls(lists=[path], directory=tmp_path / "D")


def test_the_result_is_printed(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NoUsableImageError) as caught:
        fetch(finished, str(finished / "a.csv"))
    assert caught.value.summary is not None
    print_fetched(dict(caught.value.summary))
    assert "scheme" in capsys.readouterr().out


def test_the_command_is_found_beside_fetch() -> None:
    for arguments, problem in (
        (["one"], "LIST: a value is required"),
        (["--shard-size", "0", "a", "b"], "--shard-size"),
    ):
        done = CliRunner().invoke(capt.application(), ["fetch", "urls", *arguments])
        assert (done.exit_code, problem in done.output) == (2, True)


# === Downloads of several hosts ===


@dataclass(frozen=True)
class Task:
    url: str


def test_hosts_take_turns_within_their_connections() -> None:
    now: Counter[str] = Counter()
    most: Counter[str] = Counter()
    order: list[str] = []
    lock, ended = threading.Lock(), threading.Semaphore(0)

    def run(_: HostTurns, task: Task) -> None:
        host = task.url.split("/")[2]
        with lock:
            now[host] += 1
            most[host] = max(most[host], now[host])
            order.append(host)
        time.sleep(0.002)
        with lock:
            now[host] -= 1
        ended.release()

    downloads = DownloadQueue[Task](run, DownloadLimits(), HostLimits(threads=8))
    with downloads.start():
        downloads.add([Task(f"http://a/{n}") for n in range(50)])
        downloads.add([Task(f"http://{name}/") for name in "bcdef"])
        for _ in range(55):
            assert ended.acquire(timeout=10)
    downloads.check()
    assert most["a"] == 2
    assert set(order[:12]) == set("abcdef")


def test_an_error_of_a_task_ends_the_others() -> None:
    def run(_: HostTurns, task: Task) -> None:
        raise OSError(task.url)

    downloads = DownloadQueue[Task](run, DownloadLimits(), HostLimits(threads=1))
    with downloads.start():
        downloads.add([Task("http://a/1"), Task("http://b/2")])
        with pytest.raises(OSError, match="http://a/1"):
            check_until_broken(downloads)


def check_until_broken(downloads: DownloadQueue[Task]) -> None:
    while True:
        downloads.check()
        time.sleep(0.001)
