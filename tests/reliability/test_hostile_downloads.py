"""A server's answer costs its own URL alone: each URL of a work unit ends as an image or as one failed record."""

import gzip
import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.inputs.image_urls import DownloadLimits, build_download_name, download, download_into
from features.io import public_http
from pipelines.beam.work_plans import write_unit
from pipelines.ingest.download_images import DOWNLOAD_UNIT_SCHEMA, DownloadImages, HostLimits
from schemas.errors import RecordError
from tests.hostile_server import HostileServer, Script, hostile_server
from tests.image_server import jpeg

LIMITS = DownloadLimits(
    max_bytes=1 << 16,
    connect_seconds=0.5,
    read_seconds=0.2,
    total_seconds=0.5,
    redirects=3,
    retries=1,
    backoff_seconds=0.01,
    retry_after_seconds=0.05,
)
HOST_LIMITS = HostLimits(threads=16, connections=16, pause_seconds=0.0, patience=1000)
OK = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n"
GOOD = Script(OK + b"Content-Length: %d\r\n\r\n" % len(jpeg(1)) + jpeg(1))


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    """A hostile server, the one private address that downloads may go to."""
    public = public_http.is_public
    with pytest.MonkeyPatch.context() as patch, hostile_server() as server:
        patch.setattr(public_http, "is_public", lambda address: address == "127.0.0.1" or public(address))
        yield server


def fetch(urls: list[str], host_limits: HostLimits = HOST_LIMITS, limits: DownloadLimits = LIMITS) -> dict[str, str]:
    """Runs one work unit; the reasons of the URLs that failed. Every other URL has its file."""
    with tempfile.TemporaryDirectory() as root:
        images, plan = Path(root) / "images", Path(root) / "plan"
        images.mkdir()
        write_unit(plan, "00000", ({"url": url} for url in urls), DOWNLOAD_UNIT_SCHEMA)
        counted: list[int] = []
        worker = DownloadImages(str(images), limits, host_limits)
        result = worker(plan / "units" / "00000.parquet", lambda records, _: counted.append(records))
        failed = {one["url"]: one["reason"] for one in json.loads(result)}
        assert sum(counted) == len(urls)
        there = {url for url in urls if (images / build_download_name(url)).exists()}
        assert there == set(urls) - set(failed)
        assert not list(images.rglob(".aside-*"))
    return failed


def one_of(server: HostileServer, script: Script) -> str:
    """The reason of a URL among good ones, which all succeed; empty if it succeeds too."""
    bad = server.on("/bad", script)
    # Another name of the same host: what is decided of one host must not matter to another.
    good = [server.on(f"/good-{number}", GOOD, "localhost") for number in range(3)]
    failed = fetch([*good[:2], bad, *good[2:]])
    assert set(failed) <= {bad}
    return failed.get(bad, "")


def head(*headers: bytes, status: bytes = b"302 Found") -> bytes:
    return b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n" + b"".join(h + b"\r\n" for h in headers) + b"\r\n"


LOCATIONS = [
    (b"http://[oops/", "bad address"),
    (b"//[::1", "bad address"),
    (b"http://127.0.0.1:port/", "bad address"),
    (b"http://127.0.0.1:99999999999/", "bad address"),
    ("http://ex\u2100mple.invalid/".encode(), "bad address"),
    (b"http://\xff\xfe.invalid/", "bad address"),
    (b"http://" + b"a" * 70 + b".invalid/", "bad address"),
    (b"http://" + b"a." * 4000 + b"invalid/", "no such host"),
    (b"http://user:secret@127.0.0.1/", "bad address"),
    (b"http:///x", "http 404"),
    (b"file:///etc/passwd", "scheme"),
    (b"ftp://127.0.0.1/x", "scheme"),
    (b"javascript:alert(1)", "scheme"),
    (b"http://10.0.0.1/x", "private address"),
    (b"http://[::1]/x", "private address"),
    (b"/bad", "too many redirects"),
    (b"?" + b"a" * 60000, "bad address"),
]


@pytest.mark.parametrize(("location", "reason"), LOCATIONS)
def test_a_location_of_any_kind_fails_one_url(server: HostileServer, location: bytes, reason: str) -> None:
    assert one_of(server, Script(head(b"Location: " + location))) == reason


@pytest.mark.parametrize(
    "value",
    [
        b"9" * 400,
        b"-1",
        b"1e999",
        b"nan",
        b"\xb2",
        b"Mon, 01 Jan 2020 00:00:00 +99999999999999999999",
        b"Mon, 01 Jan 2020 00:00:00 -9999",
        b"Mon, 32 Jan 2020 99:00:00 GMT",
        b"Mon, 01 Jan 99999999999 00:00:00 GMT",
        b"Fri, 31 Dec 9999 23:59:59 -2359",
        b"Mon, 01 Jan 0000 00:00:00 GMT",
        b"Fri, 31 Dec 9999 23:59:59 GMT",
        b",",
        b"",
    ],
)
def test_a_retry_after_of_any_kind_fails_one_url(server: HostileServer, value: bytes) -> None:
    assert one_of(server, Script(head(b"Retry-After: " + value, status=b"503 Busy"))) == "http 503"


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (Script(CHUNKED + b"-1\r\n", then=bytes(1 << 16)), "too large"),
        (Script(CHUNKED + b"-ffffffff\r\n", then=bytes(1 << 16)), "too large"),
        (Script(CHUNKED + b"-1\r\n" + jpeg(1)), "broken off"),
        (Script(CHUNKED + b"f" * 40 + b"\r\n" + jpeg(1)), "broken off"),
        (Script(CHUNKED + b"zz\r\n" + jpeg(1)), "broken off"),
        (Script(CHUNKED, then=b"1" * (1 << 16)), "broken off"),
        (Script(CHUNKED + b"1\r\nx\r\n0\r\n", then=b"A: b\r\n"), "timed out"),
        (Script(OK + b"Content-Length: 9" + b"9" * 5000 + b"\r\n\r\n" + jpeg(1)), ""),
        (Script(OK + b"Content-Length: 5\r\nContent-Length: 7\r\n\r\n" + jpeg(1)), "broken off"),
        (Script(OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(1 << 24))), "encoded"),
        (Script(OK, then=b"A: b\r\n"), "broken off"),
        (Script(OK + b"A: ", then=b"b" * (1 << 16)), "broken off"),
        (Script(b"", then=b"HTTP/1.1 100 Continue\r\n\r\n"), "timed out"),
        (Script(b"HTTP/1.1 103 Early Hints\r\n\r\n" + GOOD.first), "http 103"),
        (Script(OK + b"Content-Length: 99\r\n\r\nabc", ending="reset"), "broken off"),
        (Script(b"", ending="reset"), "broken off"),
        (Script(b"", ending="hold"), "timed out"),
        (Script(b"\x00\xff" * 1000), "broken off"),
    ],
)
def test_a_body_or_header_of_any_kind_fails_one_url(server: HostileServer, script: Script, reason: str) -> None:
    assert one_of(server, script) == reason


@pytest.mark.parametrize("kind", [ValueError, OverflowError, RecursionError, MemoryError, AssertionError, OSError])
def test_an_unforeseen_exception_fails_one_url(
    server: HostileServer, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    def fail(_: str) -> float:
        raise kind("unforeseen")

    monkeypatch.setattr("features.inputs.image_urls._parse_retry_after", fail)
    assert one_of(server, Script(head(status=b"503 Busy"))) == f"unexpected: {kind.__name__}"


def test_an_error_of_the_disk_is_raised_and_is_not_the_failure_of_a_url(server: HostileServer) -> None:
    class Full:
        def seek(self, _: int) -> int:
            return 0

        def truncate(self) -> int:
            return 0

        def write(self, _: bytes) -> int:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        download_into(server.on("/good", GOOD), Full(), LIMITS)  # type: ignore[arg-type]


def test_a_host_that_is_busy_forever_ends_its_own_urls_after_a_while(server: HostileServer) -> None:
    limits = replace(LIMITS, backoff_seconds=0.05, total_seconds=5)
    bad = [server.on(f"/busy-{number}", Script(head(status=b"503 Busy"))) for number in range(40)]
    good = [server.on(f"/good-{number}", GOOD, "localhost") for number in range(3)]
    before = server.requests.total()
    failed = fetch([*bad, *good], replace(HOST_LIMITS, connections=1, rest_seconds=0.2), limits)
    assert {url: failed.get(url) in ("http 503", "busy") for url in [*bad, *good]} == {
        **dict.fromkeys(bad, True),
        **dict.fromkeys(good, False),
    }
    assert "busy" in failed.values()
    assert server.requests.total() - before <= 3 + 2 * 6


def test_messages_name_no_user_and_no_signature_of_a_redirect(server: HostileServer) -> None:
    target = b"http://10.0.0.1/x.jpg?X-Amz-Signature=hidden#hidden"
    for url in (
        "http://user:hidden@127.0.0.1/x.jpg",
        server.on("/signed", Script(head(b"Location: " + target))),
        server.on("/named", Script(head(b"Location: http://user:hidden@127.0.0.1/"))),
        server.on("/wrong", Script(head(b"Location: http://user:hidden@[oops/?hidden"))),
    ):
        with pytest.raises(RecordError) as caught:
            download(url, LIMITS)
        assert "hidden" not in str(caught.value)


def test_a_long_header_makes_no_long_report(server: HostileServer) -> None:
    url = server.on("/long", Script(b"HTTP/1.1 200 OK\r\nContent-Type: " + b"x" * 60000 + b"\r\n\r\nabc"))
    with pytest.raises(RecordError) as caught:
        download(url, LIMITS)
    assert caught.value.reason == "not an image"
    assert len(caught.value.detail) < 3000


# === Drawn answers ===

_LINES = st.one_of(
    st.sampled_from([b"HTTP/1.1 200 OK", b"HTTP/1.0 200", b"HTTP/2 200 OK", b"ICY 200 OK", b"HTTP/1.1 -1 x", b""]),
    st.integers(100, 999).map(lambda status: b"HTTP/1.1 %d X" % status),
    st.binary(max_size=30),
)
_NAMES = st.sampled_from(
    b"Location Retry-After Content-Length Content-Type Content-Encoding Transfer-Encoding Connection Upgrade".split()
)
_VALUES = st.one_of(
    st.sampled_from([location for location, _ in LOCATIONS]),
    st.sampled_from(
        [b"chunked", b"gzip", b"gzip, chunked", b"image/png", b"text/html", b"close", b"0", b"-7", b"/good"]
    ),
    st.integers().map(lambda number: b"%d" % number),
    st.binary(max_size=40),
    st.text(max_size=20).map(lambda text: text.encode("utf-8", "surrogatepass")),
)
_HEADERS = st.lists(st.tuples(_NAMES, _VALUES).map(lambda pair: b"%s: %s\r\n" % pair), max_size=6).map(b"".join)
_SIZES = st.one_of(
    st.sampled_from([b"-1", b"0", b"5;x=y", b"ffffffffffffffffff", b"", b"+3", b"0x3", b" 3"]), st.binary()
)
_CHUNKS = st.lists(st.tuples(_SIZES, st.binary(max_size=50)).map(lambda pair: b"%s\r\n%s\r\n" % pair), max_size=4)
_BODIES = st.one_of(
    st.just(jpeg(1)),
    st.just(gzip.compress(bytes(1 << 20))),
    st.binary(max_size=200),
    _CHUNKS.map(b"".join),
)
_REPEATED = st.sampled_from(
    [b"", b"", b"", b"x" * 5000, b"A: b\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"1\r\nx\r\n", b"0\r\n", b"\r\n"]
)
SCRIPTS = st.builds(
    lambda line, headers, end, body, then, pause, ending: Script(
        line + b"\r\n" + headers + end + body, then, pause, ending
    ),
    _LINES,
    _HEADERS,
    st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"", b"\n", b"\r"]),
    _BODIES,
    _REPEATED,
    st.sampled_from([0.0, 0.05]),
    st.sampled_from(["close", "close", "reset", "hold"]),
)


def survives(server: HostileServer, scripts: list[Script]) -> None:
    """All good URLs of a work unit succeed, whatever the other ones answer; `fetch` checks that each URL is counted."""
    bad = [server.on(f"/drawn-{number}", script) for number, script in enumerate(scripts)]
    server.on("/good", GOOD)
    good = [server.on(f"/good-{number}", GOOD, "localhost") for number in range(2)]
    failed = fetch([good[0], *bad, good[1]])
    assert set(failed) <= set(bad)
    unforeseen = {reason for reason in failed.values() if reason.startswith("unexpected")}
    assert unforeseen == set()


_QUIET = settings(deadline=None, suppress_health_check=list(HealthCheck), database=None)


@settings(_QUIET, max_examples=20, derandomize=True)
@given(st.lists(SCRIPTS, min_size=10, max_size=14))
def test_no_drawn_answer_escapes(server: HostileServer, scripts: list[Script]) -> None:
    survives(server, scripts)


@pytest.mark.slow
@settings(_QUIET, max_examples=40)
@given(st.lists(SCRIPTS, min_size=10, max_size=16))
def test_no_drawn_answer_escapes_in_a_longer_search(server: HostileServer, scripts: list[Script]) -> None:
    survives(server, scripts)
