"""Files are downloaded from real servers on loopback: a file is complete and correct, or does not appear."""

import contextlib
import gzip
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
from tests.pipelines.beam.test_disk_errors import disk as disk  # a fixture
from tests.pipelines.beam.test_disk_errors import fill

BIG = random.Random(1).randbytes(3_000_000)
CHUNK = 1 << 18
SMALL = b"one caption\tone address\n"


@dataclass
class Site:
    """A web server's files, its behavior, and the requests that it got."""

    files: dict[str, bytes]
    etags: dict[str, str] = field(default_factory=dict)
    ranges: bool = True
    validators: bool = True
    honors_if_range: bool = True
    announces: int | None = None
    redirects: dict[str, str] = field(default_factory=dict)
    refusals: list[int] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    midway: Callable[[], object] | None = None
    requests: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    def downloads(self) -> list[dict[str, str]]:
        """The requests except those for the length only."""
        return [headers for headers in self.requests if headers.get("Range") != "bytes=0-0"]


def make_handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            self.close_connection = True
            name = urlsplit(self.path).path.rpartition("/")[2]
            site.requests.append(dict(self.headers))
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
            same = self.headers.get("If-Range", etag) == etag or not site.honors_if_range
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
    server = ThreadingHTTPServer(("127.0.0.1", 0), make_handler(site))
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
    """A small publication, short waits, and no proxy."""
    publish(
        monkeypatch,
        PublishedFile("http://published.invalid/a/small.tsv", sha256(SMALL), len(SMALL)),
        PublishedFile("http://published.invalid/b/big.zip", f"md5:{hashlib.md5(BIG).hexdigest()}"),
        PublishedFile("http://published.invalid/b/extra.zip", sha256(b"more"), 4, extra=True),
    )
    monkeypatch.setattr(file_download, "WAITS", (0.01, 0.01, 0.01))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def fetch(directory: Path, site: Site, *only: str) -> dict[str, Any]:
    return capt.fetch(dataset="tiny", directory=str(directory), only=list(only), mirror_url=f"{site.url}/mirror/")  # type: ignore[no-any-return]


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_files_are_downloaded_and_no_temporary_file_stays(site: Site, tmp_path: Path) -> None:
    result = fetch(tmp_path / "new" / "data", site)
    assert names(tmp_path / "new" / "data") == ["big.zip", "small.tsv"]
    assert (tmp_path / "new" / "data" / "big.zip").read_bytes() == BIG
    assert result["bytes"] == len(BIG) + len(SMALL)
    assert [file["state"] for file in result["files"].values()] == ["fetched", "fetched"]
    assert result["next"] == [f"capt prepare --images {tmp_path}/new/data/big.zip"]


def test_a_second_run_verifies_the_files_without_a_request(site: Site, tmp_path: Path) -> None:
    fetch(tmp_path, site)
    site.requests.clear()
    result = fetch(tmp_path, site)
    assert (result["skipped"], result["bytes"], result["corrupt"]) == (2, 0, [])
    assert not site.requests


def test_a_file_that_the_user_put_there_is_accepted_if_its_checksum_matches(site: Site, tmp_path: Path) -> None:
    (tmp_path / "big.zip").write_bytes(BIG)
    result = fetch(tmp_path, site)
    assert result["files"]["big.zip"]["state"] == "present"
    assert result["bytes"] == len(SMALL)


def test_a_corrupt_file_is_reported_and_downloaded_again(site: Site, tmp_path: Path) -> None:
    fetch(tmp_path, site)
    (tmp_path / "big.zip").write_bytes(BIG[:-1] + bytes([BIG[-1] ^ 1]))
    (tmp_path / "small.tsv").write_bytes(SMALL[:5])
    result = fetch(tmp_path, site)
    assert result["corrupt"] == ["small.tsv", "big.zip"]
    assert (tmp_path / "big.zip").read_bytes() == BIG
    assert (tmp_path / "small.tsv").read_bytes() == SMALL


def test_only_selects_files_and_extra_files_need_it(site: Site, tmp_path: Path) -> None:
    site.files["extra.zip"] = b"more"
    result = fetch(tmp_path, site, "extra.zip", "small.tsv")
    assert names(tmp_path) == ["extra.zip", "small.tsv"]
    assert result["next"] == []
    with pytest.raises(UsageError, match=r"small.tsv, big.zip, extra.zip"):
        fetch(tmp_path, site, "huge.zip")


def test_interrupted_downloads_resume(site: Site, tmp_path: Path) -> None:
    site.cuts = [1_000_000, 900_000]
    result = fetch(tmp_path, site, "big.zip")
    assert (tmp_path / "big.zip").read_bytes() == BIG
    assert result["bytes"] == len(BIG)
    assert result["resumed"] == 1
    assert [headers.get("Range") for headers in site.downloads()] == [None, "bytes=1000000-", "bytes=1900000-"]
    assert all("If-Range" in headers for headers in site.downloads()[1:])


@pytest.mark.parametrize("lacks", ["ranges", "validators"])
def test_without_ranges_or_validators_the_download_starts_again(site: Site, tmp_path: Path, lacks: str) -> None:
    setattr(site, lacks, False)
    site.cuts = [1_000_000, 900_000]
    result = fetch(tmp_path, site, "big.zip")
    assert (tmp_path / "big.zip").read_bytes() == BIG
    assert (result["resumed"], result["bytes"]) == (0, 1_900_000 + len(BIG))


def test_a_download_without_progress_fails_after_the_retries(site: Site, tmp_path: Path) -> None:
    site.ranges = False
    site.cuts = [1_000_000] * 100
    with pytest.raises(CaptError, match="connection fails"):
        fetch(tmp_path, site, "big.zip")
    assert not (tmp_path / "big.zip").exists()
    assert len(site.downloads()) == 1 + len(file_download.WAITS)


def test_a_changed_file_starts_again(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.files["big.zip"] = bytes(len(BIG))
    site.cuts = [1_000_000]

    def replace() -> None:
        site.files["big.zip"] = BIG

    site.midway = replace
    result = fetch(tmp_path, site, "big.zip")
    assert (tmp_path / "big.zip").read_bytes() == BIG
    assert (result["resumed"], result["bytes"]) == (0, 1_000_000 + len(BIG))


@pytest.mark.parametrize("other", ["address", "note"])
def test_a_part_of_unknown_origin_is_discarded(
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


def wait_for_bytes(path: Path, count: int) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until and not (path.exists() and path.stat().st_size >= count):
        time.sleep(0.01)


def test_the_download_of_a_killed_process_resumes(site: Site, tmp_path: Path) -> None:
    half = len(BIG) // 2
    stopped, ended = threading.Event(), threading.Event()
    site.cuts = [half]
    site.midway = lambda: (stopped.set(), ended.wait(20))
    program = (
        "import sys, capt; from pipelines.fetch.published_files import *; "
        f"file = PublishedFile('http://published.invalid/big.zip', {sha256(BIG)!r}); "
        "PUBLISHED['tiny'] = Publication((file,), ()); "
        "capt.fetch('tiny', sys.argv[1], mirror_url=sys.argv[2])"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path), f"{site.url}/mirror"])
    part = tmp_path / "big.zip.part"
    try:
        assert stopped.wait(20)
        wait_for_bytes(part, half - CHUNK)
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


def test_a_wrong_checksum_leaves_no_file(site: Site, tmp_path: Path) -> None:
    site.files["big.zip"] = BIG[:-1] + b"?"
    with pytest.raises(CaptError, match=r"not the published file: expected md5:.*, got md5:"):
        fetch(tmp_path, site, "big.zip")
    assert names(tmp_path) == []


def test_a_wrong_length_is_refused_before_the_download(site: Site, tmp_path: Path) -> None:
    site.files["small.tsv"] = b"<html>please log in</html>"
    with pytest.raises(CaptError, match="24 bytes, but the server's file has 26"):
        fetch(tmp_path, site)
    assert names(tmp_path) == []


def test_a_disk_that_is_too_small_is_refused_before_the_download(site: Site, tmp_path: Path) -> None:
    site.announces = 1 << 60
    with pytest.raises(CaptError, match=r"1,152,921,504\.61 GB, but .* are free"):
        fetch(tmp_path, site, "big.zip")
    assert not site.downloads()


def test_a_download_resumes_after_a_full_disk(site: Site, disk: Path) -> None:
    site.cuts = [1_000_000]

    filled = threading.Event()

    def fill_after_the_first_bytes() -> None:
        # The sockets hold as much as was sent, so the client may have written nothing yet.
        wait_for_bytes(disk / "big.zip.part", 1)
        fill(disk, 0)
        filled.set()

    site.midway = fill_after_the_first_bytes
    with pytest.raises(CaptError, match="no space is left"):
        fetch(disk, site, "big.zip")
    # The disk may be full for the client before the server has closed the file that fills it.
    assert filled.wait(20)
    site.midway = None
    (disk / "filler").unlink()
    assert fetch(disk, site, "big.zip")["resumed"] == 1
    assert (disk / "big.zip").read_bytes() == BIG


def test_a_missing_file_is_an_error(site: Site, tmp_path: Path) -> None:
    del site.files["big.zip"]
    with pytest.raises(CaptError) as raised:
        fetch(tmp_path, site)
    assert str(raised.value).startswith(f"{site.url}/mirror/big.zip: the server answers 404 Not Found.")
    assert names(tmp_path) == []


def test_an_unreachable_server_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(CaptError) as raised:
        fetch(tmp_path, Site({}, url=address))
    line = str(raised.value)
    assert "\n" not in line
    assert line.startswith(f"{address}/mirror/small.tsv: the connection fails")
    assert "--mirror-url" in line


def test_requests_to_a_busy_server_are_retried(site: Site, tmp_path: Path) -> None:
    site.refusals = [503]
    fetch(tmp_path, site, "small.tsv")
    site.refusals = [503, 503]
    (tmp_path / "small.tsv").unlink()
    with pytest.raises(CaptError, match="the server answers 503"):
        fetch(tmp_path, site, "small.tsv")


def test_only_safe_redirects_are_followed(site: Site, tmp_path: Path) -> None:
    site.redirects = {"small.tsv": "/elsewhere/moved.tsv"}
    site.files["moved.tsv"] = SMALL
    fetch(tmp_path, site, "small.tsv")
    assert (tmp_path / "small.tsv").read_bytes() == SMALL
    for there, said in (("ftp://127.0.0.1/big.zip", "not a safe URL"), ("/big.zip", "redirects")):
        site.redirects = {"big.zip": there}
        with pytest.raises(CaptError, match=said):
            fetch(tmp_path, site, "big.zip")


def test_the_proxy_of_the_environment_and_no_proxy_are_used(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", site.url.replace("http://", "http://me:secret@"))
    capt.fetch(dataset="tiny", directory=str(tmp_path), only=["small.tsv"])
    assert (tmp_path / "small.tsv").read_bytes() == SMALL
    assert site.requests[0]["Host"] == "published.invalid"
    assert site.requests[0]["proxy-authorization"] == "Basic bWU6c2VjcmV0"
    monkeypatch.setenv("no_proxy", "published.invalid")
    with pytest.raises(CaptError, match=r"http://published\.invalid/b/big\.zip: the connection fails"):
        capt.fetch(dataset="tiny", directory=str(tmp_path), only=["big.zip"])


def test_two_runs_at_once_download_each_file_once(site: Site, tmp_path: Path) -> None:
    results: list[dict[str, Any]] = []
    runs = [threading.Thread(target=lambda: results.append(fetch(tmp_path, site))) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert sorted(result["skipped"] for result in results) == [0, 2]
    assert (tmp_path / "big.zip").read_bytes() == BIG


@pytest.mark.parametrize("mirror", ["mirror.example/data", "file:///data", "http://me:word@host/", "http://host/?a=b"])
def test_a_mirror_url_is_http_without_user_query_and_fragment(tmp_path: Path, mirror: str) -> None:
    with pytest.raises(UsageError, match="--mirror-url"):
        capt.fetch(dataset="tiny", directory=str(tmp_path), mirror_url=mirror)


@pytest.fixture
def unpublished(monkeypatch: pytest.MonkeyPatch) -> None:
    """No checksum and no length of the file is known."""
    publish(monkeypatch, PublishedFile("http://published.invalid/b/big.zip"))


@pytest.mark.usefixtures("unpublished")
def test_a_checksum_that_nobody_has_published_is_recorded_and_verified_from_then_on(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = fetch(tmp_path, site)
    record = tmp_path / "big.zip.sha256"
    assert record.read_text() == f"{hashlib.sha256(BIG).hexdigest()}  big.zip\n"
    assert first["files"]["big.zip"]["checksum"] == sha256(BIG)
    assert first["files"]["big.zip"]["is_published"] is False
    assert "its origin is not verified" in caplog.text
    assert fetch(tmp_path, site)["skipped"] == 1
    (tmp_path / "big.zip").write_bytes(BIG[:-1])
    assert fetch(tmp_path, site)["corrupt"] == ["big.zip"]
    assert (tmp_path / "big.zip").read_bytes() == BIG
    site.files["big.zip"] = BIG[::-1]
    (tmp_path / "big.zip").unlink()
    with pytest.raises(CaptError, match="not the published file: expected sha256"):
        fetch(tmp_path, site)
    record.unlink()
    assert fetch(tmp_path, site)["files"]["big.zip"]["checksum"] == sha256(BIG[::-1])


def test_a_page_in_place_of_an_archive_of_unknown_checksum_is_refused(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, PublishedFile("http://published.invalid/b/photos.tgz"))
    page, archive = b"<html>moved</html>", gzip.compress(b"photos")
    site.files["photos.tgz"] = page
    with pytest.raises(CaptError, match=r"it is not a gzip file; the URL may lead to a page"):
        fetch(tmp_path, site)
    assert names(tmp_path) == []
    (tmp_path / "photos.tgz").write_bytes(page)
    site.files["photos.tgz"] = archive
    assert fetch(tmp_path, site)["corrupt"] == ["photos.tgz"]
    assert (tmp_path / "photos.tgz").read_bytes() == archive
    assert (tmp_path / "photos.tgz.sha256").read_text().startswith(hashlib.sha256(archive).hexdigest())


@pytest.mark.usefixtures("unpublished")
def test_a_checksum_that_the_user_recorded_is_verified(site: Site, tmp_path: Path) -> None:
    record = tmp_path / "big.zip.sha256"
    record.write_text("0" * 64)
    with pytest.raises(CaptError, match=f"expected sha256:{'0' * 64}"):
        fetch(tmp_path, site)
    record.write_text("not a checksum")
    with pytest.raises(CaptError, match=r"big\.zip\.sha256: the file does not begin with a SHA-256") as raised:
        fetch(tmp_path, site)
    assert "sha256sum big.zip" in str(raised.value)


def test_an_unknown_dataset_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="coco2014, coco2017, flickr8k, iapr, conceptual"):
        capt.fetch(dataset="coco", directory=str(tmp_path))


def test_the_summary_shows_files_and_next_commands(
    site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    print_fetched(fetch(tmp_path, site))
    shown = capsys.readouterr().out
    assert re.search(r"big.zip +fetched +3,000,000", shown)
    assert f"capt prepare --images {tmp_path}/big.zip" in shown


def test_the_command_prints_one_line_for_a_wrong_file(tmp_path: Path) -> None:
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


def test_the_archives_of_flickr8k_have_their_published_lengths() -> None:
    lengths = {file.name: file.bytes for file in PUBLISHED["flickr8k"].files if not file.extra}
    assert lengths == {"Flickr8k_text.zip": 2_340_801, "Flickr8k_Dataset.zip": 1_115_419_746}


@pytest.mark.parametrize("kind", ["coco2014", "coco2017", "flickr8k", "iapr", "conceptual"])
def test_published_files_are_complete_and_their_commands_valid(kind: str) -> None:
    publication = PUBLISHED[kind]
    assert len({file.name for file in publication.files}) == len(publication.files)
    for file in publication.files:
        assert urlsplit(file.url).scheme in ("http", "https")
        assert re.fullmatch(r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", file.checksum) or kind == "iapr"
    for file in publication.files:
        assert file.extra or f"{{dir}}/{file.name}" in " ".join(publication.commands)
    for line in publication.commands:
        if not line.startswith("capt "):
            continue
        _, group, name, *rest = shlex.split(line.replace("{dir}", "data"))
        command: Any = typer.main.get_command(capt.application())
        command.commands[group].commands[name].make_context(name, rest, parent=click.Context(command))
