"""Each URL is downloaded once within the politeness limits, failed URLs are recorded, and killed runs resume."""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import capt
from features.inputs.image_urls import DownloadLimits, build_download_name
from pipelines.ingest.download_images import (
    DownloadImages,
    FailedUrl,
    HostLimits,
    compute_host_bucket,
    download_urls,
    read_failed_urls,
    record_failed_url,
)
from schemas.errors import TooManyFailuresError, UsageError
from tests.image_server import ImageServer, answer, image_server, jpeg, redirect

LIMITS = DownloadLimits(
    connect_seconds=0.5,
    read_seconds=0.5,
    total_seconds=3.0,
    retries=1,
    backoff_seconds=0.01,
    retry_after_seconds=1.0,
    allow_private=True,
)
HASTY = HostLimits(threads=8, pause_seconds=0.0)
SMALL = {"extractor": "pixels", "height": 16, "width": 16}


@pytest.fixture
def server() -> Iterator[ImageServer]:
    with image_server() as server:
        yield server


def fetch(
    root: Path, urls: list[str], host_limits: HostLimits = HASTY, limits: DownloadLimits = LIMITS
) -> dict[str, str]:
    """Download into `root/images`; the reasons of those that did not come."""
    worker = DownloadImages(str(root / "images"), limits, host_limits)
    rows = sorted((compute_host_bucket(url), url) for url in urls)
    failed = download_urls(rows, len(rows), worker, root / "work", [])
    return {one.url: one.reason for one in failed}


def test_images_are_named_by_the_digests_of_their_urls(tmp_path: Path, server: ImageServer) -> None:
    urls = [server.url(f"/{number}.jpg") for number in range(5)]
    assert fetch(tmp_path, urls) == {}
    for number, url in enumerate(urls):
        assert (tmp_path / "images" / build_download_name(url)).read_bytes() == jpeg(number)
    assert sum(path.is_file() for path in tmp_path.rglob("*")) == 5


def test_existing_files_are_not_downloaded_again(tmp_path: Path, server: ImageServer) -> None:
    urls = [server.url(f"/{number}.jpg") for number in range(4)]
    fetch(tmp_path, urls[:3])
    fetch(tmp_path, urls)
    assert set(server.requests.values()) == {1}


def test_a_failed_url_affects_no_other(tmp_path: Path, server: ImageServer) -> None:
    bad = {
        server.url("/gone.jpg"): "http 404",
        server.on("/page", answer(body=b"<html>", kind="text/html")): "not an image",
        server.on("/loop", redirect("/loop")): "too many redirects",
        server.on("/silent", lambda handler: time.sleep(1)): "timed out",
        "ftp://example.com/x.jpg": "scheme",
        "http://[": "bad address",
    }
    good = [server.url(f"/{number}.jpg") for number in range(3)]
    assert fetch(tmp_path, [*bad, *good]) == bad
    assert all((tmp_path / "images" / build_download_name(url)).exists() for url in good)


def test_a_host_has_two_connections_and_a_pause_between_starts(tmp_path: Path, server: ImageServer) -> None:
    server.seconds = 0.15
    urls = [server.url(f"/{number}.jpg") for number in range(8)]
    fetch(tmp_path, urls, HostLimits(threads=8, pause_seconds=0.05))
    assert server.most_at_once == 2
    # A busy machine can bring two starts together, but not all of them.
    assert max(server.starts) - min(server.starts) > 0.9 * 7 * 0.05


def test_a_slow_host_delays_no_other(tmp_path: Path, server: ImageServer) -> None:
    others = [server.url(f"/{number}.jpg", "localhost") for number in range(6)]
    waited: list[bool] = []

    def slow(handler: BaseHTTPRequestHandler) -> None:
        waited.append(all_served.wait(10))
        answer(body=jpeg(9))(handler)

    def last(handler: BaseHTTPRequestHandler) -> None:
        answer(body=jpeg(5))(handler)
        all_served.set()

    all_served = threading.Event()
    server.on("/5.jpg", last)
    limits = replace(LIMITS, read_seconds=20, total_seconds=20)
    urls = [*others, *(server.on(f"/slow-{number}", slow) for number in range(8))]
    assert fetch(tmp_path, urls, HostLimits(threads=3, pause_seconds=0.0), limits) == {}
    assert waited == [True] * 8


def test_a_requested_pause_applies_to_every_connection_of_the_host(tmp_path: Path, server: ImageServer) -> None:
    busy = server.on("/busy", answer(429, Retry_After="1"), answer(body=jpeg(1)))
    others = [server.url(f"/{number}.jpg") for number in range(3)]
    assert fetch(tmp_path, [busy, *others], HostLimits(threads=1, connections=1, pause_seconds=0.0)) == {}
    starts = sorted(server.starts)
    assert max(later - sooner for sooner, later in pairwise(starts)) > 0.9


def test_a_host_that_requests_a_long_pause_is_not_requested_again(tmp_path: Path, server: ImageServer) -> None:
    urls = [server.on(f"/busy-{number}", answer(429, Retry_After="3600")) for number in range(6)]
    reasons = fetch(tmp_path, urls, HostLimits(connections=1, pause_seconds=0.0))
    assert reasons == dict.fromkeys(urls, "http 429")
    assert server.requests.total() == 1
    assert list(read_failed_urls(tmp_path / "images", LIMITS)) == []


def test_an_unreachable_host_is_abandoned(tmp_path: Path) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        urls = [f"http://127.0.0.1:{nobody.getsockname()[1]}/{number}.jpg" for number in range(20)]
        worker = DownloadImages(str(tmp_path / "images"), replace(LIMITS, retries=0), replace(HASTY, connections=1))
        rows = [(compute_host_bucket(url), url) for url in urls]
        failed = list(download_urls(rows, 20, worker, tmp_path / "work", []))
    assert {one.reason for one in failed} == {"refused"}
    assert sum("not requested" in one.detail for one in failed) == 10


def test_permanent_failures_are_remembered_and_others_are_not(tmp_path: Path, server: ImageServer) -> None:
    gone, broken = server.url("/gone.jpg"), server.on("/broken", answer(500))
    fetch(tmp_path, [gone, broken])
    (link,) = read_failed_urls(tmp_path / "images", LIMITS)
    assert (link.url, link.reason) == (gone, "http 404")


def test_an_image_too_large_then_is_tried_again_under_a_higher_limit(tmp_path: Path, server: ImageServer) -> None:
    url = server.url("/1.jpg")
    assert fetch(tmp_path, [url], limits=replace(LIMITS, max_bytes=100)) == {url: "too large"}
    assert [link.url for link in read_failed_urls(tmp_path / "images", replace(LIMITS, max_bytes=100))] == [url]
    assert list(read_failed_urls(tmp_path / "images", LIMITS)) == []


def test_a_robots_tag_refuses_an_image_until_it_is_ignored(tmp_path: Path, server: ImageServer) -> None:
    tags = ["noai", "nofollow, NoImageAI", "all", "otherbot: noai"]
    urls = [server.on(f"/tag-{n}", answer(body=jpeg(n), X_Robots_Tag=tag)) for n, tag in enumerate(tags)]
    refused = set(urls[:2])
    heeding = replace(LIMITS, heed_robots_tag=True)
    assert fetch(tmp_path, urls, limits=heeding) == dict.fromkeys(refused, "robots tag")
    assert {one.url for one in read_failed_urls(tmp_path / "images", heeding)} == refused
    assert list(read_failed_urls(tmp_path / "images", LIMITS)) == []
    assert fetch(tmp_path, list(refused)) == {}


def test_a_host_name_is_looked_up_once_per_job(
    tmp_path: Path, server: ImageServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = Counter[str]()

    def look_up(host: str, *values: Any, **named: Any) -> Any:
        names[host] += 1
        if host == "gone.example":
            raise socket.gaierror(socket.EAI_NONAME, "no such host")
        return original(host, *values, **named)

    original = socket.getaddrinfo
    monkeypatch.setattr("features.io.host_addresses.socket.getaddrinfo", look_up)
    urls = [server.url(f"/{number}.jpg", host) for number in range(3) for host in ("localhost", "gone.example")]
    reasons = fetch(tmp_path, urls, HostLimits(threads=1, pause_seconds=0.0))
    assert list(reasons.values()) == ["no such host"] * 3
    assert names == {"localhost": 1, "gone.example": 1}


def test_a_torn_line_of_a_killed_run_affects_no_other(tmp_path: Path) -> None:
    links = [FailedUrl(url=f"http://a.example/{n}", reason="http 404", detail="", max_bytes=1) for n in range(3)]
    record_failed_url(tmp_path, 7, links[0])
    with (tmp_path / "dead" / "07.jsonl").open("ab") as file:
        file.write(b'{"url": "http://a.exa')
    record_failed_url(tmp_path, 7, links[1])
    record_failed_url(tmp_path, 7, links[2])
    assert list(read_failed_urls(tmp_path, LIMITS)) == links


# A shell that starts the tests behind its back has interrupts ignored, and what it starts takes that over.
KILLED = """
import json, signal, sys
from pathlib import Path
from tests.pipelines.ingest.test_download_images import fetch
signal.signal(signal.SIGINT, signal.default_int_handler)
fetch(Path(sys.argv[1]), json.loads(sys.argv[2]))
"""


@pytest.mark.parametrize("blow", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_killed_run_resumes_and_downloads_nothing_twice(
    tmp_path: Path, server: ImageServer, blow: signal.Signals
) -> None:
    server.seconds = 0.25
    count = 300
    urls = [server.url(f"/{number}.jpg") for number in range(count)]
    images = tmp_path / "images"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), json.dumps(urls)], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while sum((images / build_download_name(url)).exists() for url in urls) < 10 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(blow)
    assert process.wait(30) == -blow
    time.sleep(0.2)
    there = {url for url in urls if (images / build_download_name(url)).exists()}
    assert 10 <= len(there) < count
    # Two were under way when the run was killed.
    assert len(there) <= server.requests.total() <= len(there) + 2
    assert set(server.requests.values()) == {1}
    server.requests.clear()
    server.seconds = 0
    assert fetch(tmp_path, urls) == {}
    assert [(images / build_download_name(url)).read_bytes() for url in urls] == [jpeg(n) for n in range(count)]
    # A request that the machine broke off is repeated, so the numbers are not compared.
    assert set(server.requests) == {f"/{n}.jpg" for n, url in enumerate(urls) if url not in there}
    assert list(images.rglob(".aside-*")) == []


def test_the_worker_of_a_lost_unit_takes_what_the_first_one_left(tmp_path: Path, server: ImageServer) -> None:
    url = server.url("/1.jpg")
    name = tmp_path / "images" / build_download_name(url)
    name.parent.mkdir(parents=True)
    name.write_bytes(b"already here")
    assert fetch(tmp_path, [url]) == {}
    assert server.requests.total() == 0


# === Conceptual Captions ===


@pytest.fixture
def rows(tmp_path: Path, server: ImageServer) -> Path:
    """A directory of annotations as published: twelve good rows, twin captions and images, dead links, bad lines."""
    directory = tmp_path / "annotations"
    directory.mkdir()
    train = [f"a thing number {number}\t{server.url(f'/{number}.jpg')}" for number in range(10)]
    train += [
        f"another of number 0\t{server.url('/0.jpg')}",
        f"a thing number 1\t{server.url('/1.jpg')}",
        f"the same bytes elsewhere\t{server.on('/twin', answer(body=jpeg(2)))}",
        f"gone\t{server.url('/gone.jpg')}",
        f"a page\t{server.on('/page', answer(body=b'<html>', kind='text/html'))}",
        f"broken\t{server.on('/corrupt', answer(body=jpeg(1)[:300]))}",
        f"moved\t{server.on('/moved', redirect('ftp://127.0.0.1/x.jpg'))}",
        "no separator here",
        "no address\t",
    ]
    (directory / "Train_GCC-training.tsv").write_text("\n".join(train) + "\n", encoding="utf-8")
    validation = "".join(f"seen {number} later\t{server.url(f'/{number}.jpg')}\n" for number in range(10, 12))
    (directory / "Validation_GCC-1.1.0-Validation.tsv").write_text(validation, encoding="utf-8")
    return directory


def prepare(rows: Path, **options: Any) -> dict[str, Any]:
    root = rows.parent
    given = {"store": str(root / "store"), "images": [str(root / "images")], "annotations": [str(rows)]}
    limits = {"allow_private_addresses": True, "dataset_type": "conceptual", **SMALL}
    result: dict[str, Any] = capt.prepare_features(**{**given, **limits, **options})
    assert sum(result[status] for status in ("ok", "cached", "duplicate", "failed")) == result["input"]
    return result


def test_conceptual_captions_are_downloaded_and_every_dead_link_is_a_failed_row(
    rows: Path, server: ImageServer
) -> None:
    plan = prepare(rows, dry_run=True)
    assert (plan["input"], plan["downloads"], plan["ok"], server.requests.total()) == (17, 17, 17, 0)
    assert not (rows.parent / "images").exists()

    first = prepare(rows)
    assert (first["input"], first["ok"], first["duplicate"], first["failed"]) == (17, 12, 1, 4)
    assert (first["downloads"], first["unannotated"]) == (14, 0)
    report = {row["detail"].split(": ")[0]: row for row in pq.read_table(first["report"]).to_pylist()}
    assert (report[server.url("/gone.jpg")]["stage"], report[server.url("/gone.jpg")]["reason"]) == (
        "download",
        "http 404",
    )
    assert first["reasons"] == {"http 404": 1, "not an image": 1, "scheme": 1, "truncated": 1}
    splits = capt.open_store(rows.parent / "store").dataset("conceptual").catalog().to_pylist()
    assert sorted(row["split"] for row in splits) == ["train"] * 11 + ["val"] * 2

    before = server.requests.copy()
    again = prepare(rows)
    assert (again["cached"], again["failed"], again["downloads"]) == (13, 4, 0)
    assert server.requests == before

    server.on("/gone.jpg", answer(body=jpeg(77)))
    assert prepare(rows)["failed"] == 4
    retried = prepare(rows, retry_failed=True)
    assert (retried["ok"], retried["failed"], retried["downloads"]) == (1, 3, 1)


def test_an_ambiguous_file_fails_alone_while_others_are_downloaded(rows: Path, server: ImageServer) -> None:
    roots = [rows.parent / "images", rows.parent / "other"]
    for number, root in enumerate(roots):
        path = root / build_download_name(server.url("/3.jpg"))
        path.parent.mkdir(parents=True)
        path.write_bytes(jpeg(50 + number))
    result = prepare(rows, images=[str(root) for root in roots])
    assert result["reasons"] == {"ambiguous": 1, "http 404": 1, "not an image": 1, "scheme": 1, "truncated": 1}
    assert result["ok"] == 11


def test_private_addresses_are_refused_unless_allowed(rows: Path, server: ImageServer) -> None:
    result = prepare(rows, allow_private_addresses=False)
    assert (result["ok"], result["reasons"]) == (0, {"private address": 17})
    assert server.requests.total() == 0


def test_a_limit_takes_the_same_rows_of_images_and_captions_and_downloads_no_other(
    rows: Path, server: ImageServer
) -> None:
    features = prepare(rows, limit_images=5)
    assert features["input"] == 5
    assert len(server.requests) <= 5
    chosen = {row["record"] for row in pq.read_table(features["report"]).to_pylist()}
    captions = prepare_captions(rows, limit_images=5)
    reported = {row["record"].split("#")[0] for row in pq.read_table(captions["report"]).to_pylist()}
    assert chosen <= reported
    assert {record for record in reported if len(record) == 64} == chosen


def prepare_captions(rows: Path, **options: Any) -> dict[str, Any]:
    result: dict[str, Any] = capt.prepare_captions(
        store=str(rows.parent / "store"), dataset_type="conceptual", annotations=[str(rows)], **options
    )
    return result


def test_captions_of_conceptual_are_distinguished_by_their_text(rows: Path) -> None:
    result = prepare_captions(rows)
    assert (result["input"], result["ok"], result["duplicate"], result["failed"]) == (21, 18, 1, 2)
    assert result["reasons"] == {"no URL": 1, "no separator": 1}
    text = capt.open_store(rows.parent / "store").caption_table(result["fingerprint"]).captions().to_pylist()
    file = rows / "Train_GCC-training.tsv"
    file.write_text("\n".join(reversed(file.read_text(encoding="utf-8").splitlines())), encoding="utf-8")
    again = prepare_captions(rows)
    assert (again["cached"], again["ok"]) == (18, 0)
    assert capt.open_store(rows.parent / "store").caption_table(result["fingerprint"]).captions().to_pylist() == text


def test_the_share_that_may_fail_can_be_set_all_the_same(rows: Path) -> None:
    with pytest.raises(TooManyFailuresError, match="4 of 17"):
        prepare(rows, max_failures="5%")


def test_downloads_need_a_directory(rows: Path, tmp_path: Path) -> None:
    file = tmp_path / "images.txt"
    file.write_text("no directory")
    with pytest.raises(UsageError, match=r"--images .*images\.txt: .*not a local directory"):
        prepare(rows, images=[str(file)])


@pytest.mark.slow
def test_a_captioner_trains_on_conceptual_captions(rows: Path) -> None:
    prepare(rows, extractor="mobilenet_v3_small", weights="random:7", height=None, width=None)
    prepare_captions(rows)
    result = capt.train_captioner(
        store=str(rows.parent / "store"), run_dir=str(rows.parent / "run"), epochs=1, steps_per_epoch=1
    )
    assert result["loss"] > 0
