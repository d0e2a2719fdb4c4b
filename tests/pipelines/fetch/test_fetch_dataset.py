"""Fetching from real servers on loopback: broken, killed, changed, refused; a file is there whole and right or not."""

import contextlib
import hashlib
import os
import random
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import pytest
import typer

import capt
from pipelines.fetch import file_download
from pipelines.fetch.fetch_dataset import print_fetched
from pipelines.fetch.published_files import PUBLISHED, Publication, PublishedFile
from schemas.errors import CaptError, UsageError
from tests.pipelines.test_disk import disk as disk  # a fixture
from tests.pipelines.test_disk import fill

BIG = random.Random(1).randbytes(3_000_000)
CHUNK = 1 << 18  # what is written at a time
SMALL = b"one caption\tone address\n"


@dataclass
class Site:
    """A web server's files, how it behaves, and what it was asked."""

    files: dict[str, bytes]
    etags: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    validators: bool = True
    heeds_if_range: bool = True
    announces: int | None = None
    redirects: dict[str, str] = field(default_factory=dict)
    refusals: list[int] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    midway: Callable[[], object] | None = None
    asked: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    def downloads(self) -> list[dict[str, str]]:
        """The requests but those that only ask for the length."""
        return [headers for headers in self.asked if headers.get("Range") != "bytes=0-0"]


def handler_of(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self.close_connection = True
            name = urlsplit(self.path).path.rpartition("/")[2]
            site.asked.append(dict(self.headers))
            if site.refusals:
                self.plain(site.refusals.pop(0))
            elif name in site.redirects:
                self.plain(302, Location=site.redirects[name])
            elif name not in site.files:
                self.plain(404)
            else:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self.body(name, site.files[name])

        def plain(self, status: int, **headers: str) -> None:
            self.send_response(status)
            for key, value in {"Content-Length": "0", **headers}.items():
                self.send_header(key, value)
            self.end_headers()

        def body(self, name: str, data: bytes) -> None:
            etag = site.etags.get(name, f'"{hashlib.sha1(data).hexdigest()}"')
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            same = self.headers.get("If-Range", etag) == etag or not site.heeds_if_range
            first, last = 0, len(data) - 1
            if site.ranges and asked and same:
                first, last = int(asked[1]), int(asked[2] or last)
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{last}/{site.announces or len(data)}")
            else:
                self.send_response(200)
            length = last + 1 - first
            self.send_header("Content-Length", str(site.announces or length))
            if site.validators:
                self.send_header("ETag", etag)
            self.end_headers()
            self.send(data[first : last + 1], probe=self.headers.get("Range") == "bytes=0-0")

        def send(self, data: bytes, probe: bool) -> None:
            middle = len(data) if probe or not site.cuts else site.cuts.pop(0)
            self.wfile.write(data[:middle])
            self.wfile.flush()
            if not probe and site.midway:
                site.midway()
            if middle == len(data):
                self.wfile.write(data[middle:])

    return Handler


@contextlib.contextmanager
def serving(site: Site) -> Iterator[Site]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(site))
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site({"big.zip": BIG, "small.tsv": SMALL})) as running:
        yield running


def sha256(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def publish(monkeypatch: pytest.MonkeyPatch, *files: PublishedFile) -> None:
    monkeypatch.setitem(PUBLISHED, "tiny", Publication(files, ("capt prepare --images {dir}/big.zip",)))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small publication, short waits, and no proxy but a test's own."""
    publish(
        monkeypatch,
        PublishedFile("http://published.invalid/a/small.tsv", "captions", sha256(SMALL), len(SMALL)),
        PublishedFile("http://published.invalid/b/big.zip", "images", f"md5:{hashlib.md5(BIG).hexdigest()}"),
        PublishedFile("http://published.invalid/b/extra.zip", "more", sha256(b"more"), 4, extra=True),
    )
    monkeypatch.setattr(file_download, "WAITS", (0.01, 0.01, 0.01))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def fetch(place: Path, site: Site, *only: str) -> dict[str, Any]:
    return capt.fetch(dataset="tiny", directory=str(place), only=list(only), mirror_url=f"{site.url}/mirror/")  # type: ignore[no-any-return]


def names(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir())


def test_files_arrive_whole_and_nothing_else_is_left(site: Site, tmp_path: Path) -> None:
    result = fetch(tmp_path / "new" / "data", site)
    assert names(tmp_path / "new" / "data") == ["big.zip", "small.tsv"]
    assert (tmp_path / "new" / "data" / "big.zip").read_bytes() == BIG
    assert result["bytes"] == len(BIG) + len(SMALL)
    assert [file["state"] for file in result["files"].values()] == ["fetched", "fetched"]
    assert result["next"] == [f"capt prepare --images {tmp_path}/new/data/big.zip"]


def test_a_second_run_checks_what_is_there_and_asks_no_server(site: Site, tmp_path: Path) -> None:
    fetch(tmp_path, site)
    site.asked.clear()
    result = fetch(tmp_path, site)
    assert (result["skipped"], result["bytes"], result["damaged"]) == (2, 0, [])
    assert not site.asked


def test_a_file_put_there_by_hand_is_taken_if_it_is_the_published_one(site: Site, tmp_path: Path) -> None:
    (tmp_path / "big.zip").write_bytes(BIG)
    result = fetch(tmp_path, site)
    assert result["files"]["big.zip"]["state"] == "present"
    assert result["bytes"] == len(SMALL)


def test_a_damaged_file_is_named_and_fetched_again(site: Site, tmp_path: Path) -> None:
    fetch(tmp_path, site)
    (tmp_path / "big.zip").write_bytes(BIG[:-1] + bytes([BIG[-1] ^ 1]))
    (tmp_path / "small.tsv").write_bytes(SMALL[:5])
    result = fetch(tmp_path, site)
    assert result["damaged"] == ["small.tsv", "big.zip"]
    assert (tmp_path / "big.zip").read_bytes() == BIG
    assert (tmp_path / "small.tsv").read_bytes() == SMALL


def test_only_takes_the_named_files_and_extras_come_only_so(site: Site, tmp_path: Path) -> None:
    site.files["extra.zip"] = b"more"
    result = fetch(tmp_path, site, "extra.zip", "small.tsv")
    assert names(tmp_path) == ["extra.zip", "small.tsv"]
    assert result["next"] == []
    with pytest.raises(UsageError, match=r"small.tsv, big.zip, extra.zip"):
        fetch(tmp_path, site, "huge.zip")


def test_broken_connections_are_gone_on_with(site: Site, tmp_path: Path) -> None:
    site.cuts = [1_000_000, 900_000]
    result = fetch(tmp_path, site, "big.zip")
    assert (tmp_path / "big.zip").read_bytes() == BIG
    assert result["bytes"] == len(BIG)
    assert result["resumed"] == 1
    assert [headers.get("Range") for headers in site.downloads()] == [None, "bytes=1000000-", "bytes=1900000-"]
    assert all("If-Range" in headers for headers in site.downloads()[1:])


@pytest.mark.parametrize("lacks", ["ranges", "validators"])
def test_a_server_that_cannot_go_on_begins_anew(site: Site, tmp_path: Path, lacks: str) -> None:
    setattr(site, lacks, False)
    site.cuts = [1_000_000, 900_000]
    result = fetch(tmp_path, site, "big.zip")
    assert (tmp_path / "big.zip").read_bytes() == BIG
    assert (result["resumed"], result["bytes"]) == (0, 1_900_000 + len(BIG))


def test_a_server_that_never_gets_further_is_given_up_on(site: Site, tmp_path: Path) -> None:
    site.ranges = False
    site.cuts = [1_000_000] * 100
    with pytest.raises(CaptError, match="connection fails"):
        fetch(tmp_path, site, "big.zip")
    assert not (tmp_path / "big.zip").exists()
    assert len(site.downloads()) == 1 + len(file_download.WAITS)


def test_a_file_that_changed_meanwhile_begins_anew(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.files["big.zip"] = bytes(len(BIG))
    site.cuts = [1_000_000]

    def replace() -> None:
        site.files["big.zip"] = BIG

    site.midway = replace
    result = fetch(tmp_path, site, "big.zip")
    assert (tmp_path / "big.zip").read_bytes() == BIG
    assert (result["resumed"], result["bytes"]) == (0, 1_000_000 + len(BIG))


@pytest.mark.parametrize("other", ["address", "note"])
def test_a_part_of_unknown_origin_is_not_gone_on_with(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    monkeypatch.setattr(file_download, "WAITS", ())
    site.cuts = [1_000_000]
    with pytest.raises(CaptError, match=r"ended after 1,000,000 of 3,000,000 bytes|IncompleteRead"):
        fetch(tmp_path, site, "big.zip")
    assert (tmp_path / "big.zip.part").stat().st_size > 0
    if other == "note":
        (tmp_path / "big.zip.part.json").write_text("{")
    mirror = f"{site.url}/{'mirror' if other == 'note' else 'other'}"
    result = capt.fetch(dataset="tiny", directory=str(tmp_path), only=["big.zip"], mirror_url=mirror)
    assert (result["resumed"], result["bytes"]) == (0, len(BIG))
    assert names(tmp_path) == ["big.zip"]


def test_what_a_killed_process_had_is_gone_on_with(site: Site, tmp_path: Path) -> None:
    half = len(BIG) // 2
    stopped, ended = threading.Event(), threading.Event()
    site.cuts = [half]
    site.midway = lambda: (stopped.set(), ended.wait(20))
    program = (
        "import sys, capt; from pipelines.fetch.published_files import *; "
        f"file = PublishedFile('http://published.invalid/big.zip', '', {sha256(BIG)!r}); "
        "PUBLISHED['tiny'] = Publication((file,), ()); "
        "capt.fetch('tiny', sys.argv[1], mirror_url=sys.argv[2])"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path), f"{site.url}/mirror"])
    part = tmp_path / "big.zip.part"
    try:
        assert stopped.wait(20)
        until = time.monotonic() + 10
        while time.monotonic() < until and not (part.exists() and part.stat().st_size >= half - CHUNK):
            time.sleep(0.01)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        ended.set()
    arrived = part.stat().st_size
    assert arrived >= half - CHUNK
    assert not (tmp_path / "big.zip").exists()
    site.midway = None
    result = fetch(tmp_path, site, "big.zip")
    assert names(tmp_path) == ["big.zip"]
    assert (tmp_path / "big.zip").read_bytes() == BIG
    assert (result["resumed"], result["bytes"]) == (1, len(BIG) - arrived)


def test_a_wrong_checksum_leaves_nothing(site: Site, tmp_path: Path) -> None:
    site.files["big.zip"] = BIG[:-1] + b"?"
    with pytest.raises(CaptError, match=r"not the published file: expected md5:.*, got md5:"):
        fetch(tmp_path, site, "big.zip")
    assert names(tmp_path) == []


def test_another_length_than_the_published_one_is_refused_before_anything_is_fetched(
    site: Site, tmp_path: Path
) -> None:
    site.files["small.tsv"] = b"<html>please log in</html>"
    with pytest.raises(CaptError, match="24 bytes, but the server's file has 26"):
        fetch(tmp_path, site)
    assert names(tmp_path) == []


def test_a_disk_that_is_too_small_is_told_before_anything_is_fetched(site: Site, tmp_path: Path) -> None:
    site.announces = 1 << 60
    with pytest.raises(CaptError, match=r"1,152,921,504\.61 GB, but .* are free"):
        fetch(tmp_path, site, "big.zip")
    assert not site.downloads()


def test_a_disk_that_fills_up_is_one_line_and_what_arrived_is_gone_on_with(site: Site, disk: Path) -> None:
    site.cuts = [1_000_000]
    site.midway = lambda: fill(disk, 0)
    with pytest.raises(CaptError, match="no space is left"):
        fetch(disk, site, "big.zip")
    site.midway = None
    (disk / "filler").unlink()
    assert fetch(disk, site, "big.zip")["resumed"] == 1
    assert (disk / "big.zip").read_bytes() == BIG


def test_a_missing_file_is_one_line(site: Site, tmp_path: Path) -> None:
    del site.files["big.zip"]
    with pytest.raises(CaptError) as raised:
        fetch(tmp_path, site)
    assert str(raised.value).startswith(f"{site.url}/mirror/big.zip: the server answers 404 Not Found.")
    assert names(tmp_path) == []


def test_no_server_is_one_line_that_names_the_address_and_the_way_out(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(CaptError) as raised:
        fetch(tmp_path, Site({}, url=address))
    line = str(raised.value)
    assert "\n" not in line
    assert line.startswith(f"{address}/mirror/small.tsv: the connection fails")
    assert "--mirror-url" in line


def test_a_busy_server_is_tried_again(site: Site, tmp_path: Path) -> None:
    site.refusals = [503]
    fetch(tmp_path, site, "small.tsv")
    site.refusals = [503, 503]
    (tmp_path / "small.tsv").unlink()
    with pytest.raises(CaptError, match="the server answers 503"):
        fetch(tmp_path, site, "small.tsv")


def test_redirects_are_followed_but_not_everywhere(site: Site, tmp_path: Path) -> None:
    site.redirects = {"small.tsv": "/elsewhere/moved.tsv"}
    site.files["moved.tsv"] = SMALL
    fetch(tmp_path, site, "small.tsv")
    assert (tmp_path / "small.tsv").read_bytes() == SMALL
    for there, said in (("ftp://127.0.0.1/big.zip", "not a safe URL"), ("/big.zip", "redirects")):
        site.redirects = {"big.zip": there}
        with pytest.raises(CaptError, match=said):
            fetch(tmp_path, site, "big.zip")


def test_the_environments_proxy_is_used_and_its_exceptions_hold(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", site.url.replace("http://", "http://me:secret@"))
    capt.fetch(dataset="tiny", directory=str(tmp_path), only=["small.tsv"])
    assert (tmp_path / "small.tsv").read_bytes() == SMALL
    assert site.asked[0]["Host"] == "published.invalid"
    assert site.asked[0]["proxy-authorization"] == "Basic bWU6c2VjcmV0"
    monkeypatch.setenv("no_proxy", "published.invalid")
    with pytest.raises(CaptError, match=r"http://published\.invalid/b/big\.zip: the connection fails"):
        capt.fetch(dataset="tiny", directory=str(tmp_path), only=["big.zip"])


def test_two_at_once_do_not_disturb_each_other(site: Site, tmp_path: Path) -> None:
    results: list[dict[str, Any]] = []
    runs = [threading.Thread(target=lambda: results.append(fetch(tmp_path, site))) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert sorted(result["skipped"] for result in results) == [0, 2]
    assert (tmp_path / "big.zip").read_bytes() == BIG


@pytest.mark.parametrize("mirror", ["mirror.example/data", "file:///data", "http://me:word@host/", "http://host/?a=b"])
def test_a_mirror_is_a_plain_web_address(tmp_path: Path, mirror: str) -> None:
    with pytest.raises(UsageError, match="--mirror-url"):
        capt.fetch(dataset="tiny", directory=str(tmp_path), mirror_url=mirror)


def test_an_unknown_dataset_is_told_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="coco2014, coco2017, flickr8k, conceptual"):
        capt.fetch(dataset="coco", directory=str(tmp_path))


def test_what_is_there_is_shown_with_what_to_do_next(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_fetched(fetch(tmp_path, site))
    shown = capsys.readouterr().out
    assert re.search(r"big.zip +fetched +3,000,000", shown)
    assert f"capt prepare --images {tmp_path}/big.zip" in shown


def test_the_command_line_tells_a_wrong_file_in_one_line(tmp_path: Path) -> None:
    with serving(Site({"GCC-1.1.0-Validation.tsv": b""})) as site:
        command = [
            sys.executable,
            "-m",
            "capt",
            "fetch",
            "conceptual",
            str(tmp_path),
            "--mirror-url",
            site.url,
            "--json",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"capt: {site.url}/GCC-1.1.0-Validation.tsv: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("kind", ["coco2014", "coco2017", "flickr8k", "conceptual"])
def test_the_catalog_is_complete_and_its_commands_are_understood(kind: str) -> None:
    publication = PUBLISHED[kind]
    assert len({file.name for file in publication.files}) == len(publication.files)
    for file in publication.files:
        assert urlsplit(file.url).scheme in ("http", "https")
        assert re.fullmatch(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", file.checksum)
    for line in publication.commands:
        for file in publication.files:
            assert file.extra or f"{{dir}}/{file.name}" in " ".join(publication.commands)
        _, group, name, *rest = shlex.split(line.replace("{dir}", "data"))
        command: Any = typer.main.get_command(capt.application())
        command.commands[group].commands[name].make_context(name, rest, parent=click.Context(command))
