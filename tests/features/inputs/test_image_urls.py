"""Downloads keep their limits of time, size and address, and every failure has its reason."""

import gzip
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from pathlib import Path

import pytest

from features.inputs.image_urls import DownloadLimits, download, download_into
from features.io.public_http import is_public
from schemas.errors import RecordError
from schemas.secrets import strip_user
from tests.image_server import ImageServer, answer, image_server, jpeg, redirect, trickle

QUICK = DownloadLimits(
    max_bytes=1 << 20,
    connect_seconds=0.5,
    read_seconds=0.3,
    total_seconds=2.0,
    retries=2,
    backoff_seconds=0.01,
    retry_after_seconds=0.5,
    allow_private=True,
)
ONCE = replace(QUICK, retries=0)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[ImageServer]:
    with image_server() as server:
        yield server


def failure(url: str, limits: DownloadLimits = ONCE) -> RecordError:
    with pytest.raises(RecordError) as caught:
        download(url, limits)
    error = caught.value
    assert error.stage == "download"
    assert strip_user(url)[:80] in error.detail
    assert "word" not in error.detail
    return error


def test_an_image_is_downloaded_unchanged(server: ImageServer) -> None:
    assert download(server.url("/1.jpg"), QUICK) == jpeg(1)
    assert "capt" in server.headers["/1.jpg"]["User-Agent"]
    assert server.headers["/1.jpg"]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_absolute_and_relative_redirects_are_followed(server: ImageServer, status: int) -> None:
    server.on("/old/there", redirect("deeper/%C3%BCber.jpg?x=1#part", status))
    server.on("/old/deeper/%C3%BCber.jpg?x=1", redirect(server.url("/2.jpg", "localhost"), status))
    assert download(server.url("/old/there"), QUICK) == jpeg(2)


def test_a_redirect_in_utf_8_is_decoded(server: ImageServer) -> None:
    place = "HTTP/1.1 302 Found\r\nLocation: /größe.jpg\r\nContent-Length: 0\r\n\r\n".encode()
    server.on("/utf-8", lambda handler: handler.wfile.write(place))
    server.on("/gr%C3%B6%C3%9Fe.jpg", answer(body=jpeg(3)))
    assert download(server.url("/utf-8"), QUICK) == jpeg(3)


def test_a_redirect_loop_ends(server: ImageServer) -> None:
    url = server.on("/loop", redirect("/loop"))
    before = server.requests["/loop"]
    assert failure(url).reason == "too many redirects"
    assert server.requests["/loop"] - before == QUICK.redirects + 1


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("http://10.0.0.1/x.jpg", "private address"),
        ("http://169.254.169.254/latest/meta-data", "private address"),
        ("http://[::1]/x.jpg", "private address"),
        ("http://0x7f000002/x.jpg", "private address"),
        ("file:///etc/passwd", "scheme"),
        ("ftp://example.com/x.jpg", "scheme"),
        ("http://user:word@example.com/x.jpg", "bad address"),
    ],
)
def test_every_redirect_is_checked_like_the_url(
    server: ImageServer, monkeypatch: pytest.MonkeyPatch, location: str, reason: str
) -> None:
    # The server has the only private address that is allowed.
    monkeypatch.setattr(
        "features.io.public_http.is_public", lambda address: address == "127.0.0.1" or is_public(address)
    )
    error = failure(server.on("/away", redirect(location)), replace(ONCE, allow_private=False))
    assert error.reason == reason
    assert strip_user(location) in error.detail


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "10.0.0.1",
        "169.254.169.254",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0",
        "127.1",
        "2130706433",
    ],
)
def test_private_addresses_are_refused_by_default(server: ImageServer, host: str) -> None:
    before = server.requests.total()
    error = failure(server.url("/1.jpg", host), replace(ONCE, allow_private=False))
    assert (error.reason, error.permanent) == ("private address", False)
    assert server.requests.total() == before


def test_public_addresses_are_distinguished_from_others() -> None:
    public = "8.8.8.8 ::ffff:8.8.8.8 2002:808:808:: 64:ff9b::808:808 2606:4700::1111"
    private = (
        "0.0.0.0 10.1.2.3 100.64.0.1 127.0.0.1 169.254.169.254 172.16.0.1 192.168.0.1 192.0.2.1 198.18.0.1 224.0.0.1"
        " 240.0.0.1 255.255.255.255 :: ::1 ::7f00:1 ::ffff:10.0.0.1 2002:7f00:1:: 64:ff9b::a00:1 64:ff9b:1::1 2001::1"
        " 2001:db8::1 3fff::1 fc00::1 fe80::1%eth0 fec0::1 ff02::1"
    )
    assert {address: is_public(address) for address in public.split()} == dict.fromkeys(public.split(), True)
    assert {address: is_public(address) for address in private.split()} == dict.fromkeys(private.split(), False)


def test_a_host_name_is_resolved_once(server: ImageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = ["127.0.0.1", "10.0.0.1"]
    monkeypatch.setattr(
        "features.io.host_addresses.socket.getaddrinfo",
        lambda host, port, type: [(socket.AF_INET, type, 6, "", (answers.pop(0), port))],  # noqa: A006
    )
    assert download(server.url("/4.jpg", "rebinding.example"), QUICK) == jpeg(4)
    assert answers == ["10.0.0.1"]


@pytest.mark.parametrize("url", ["ftp://example.com/a.jpg", "file:///etc/passwd", "example.com/a.jpg", "", "data:,x"])
def test_other_schemes_are_refused(url: str) -> None:
    error = failure(url)
    assert (error.reason, error.permanent) == ("scheme", True)


@pytest.mark.parametrize(
    "url",
    [
        "http://user:word@127.0.0.1/a.jpg",
        "http://127.0.0.1:99999/a.jpg",
        "http:///a.jpg",
        "http://[::1/a.jpg",
        "http://" + "a" * 70 + ".example/",
        "http://127.0.0.1/" + "a" * 9000,
    ],
)
def test_invalid_urls_are_refused(url: str) -> None:
    error = failure(url)
    assert (error.reason, error.permanent) == ("bad address", True)


def test_a_proxy_of_the_environment_is_not_used(server: ImageServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert download(server.url("/5.jpg"), QUICK) == jpeg(5)


@pytest.mark.parametrize(
    ("status", "permanent", "tries"), [(404, True, 1), (410, True, 1), (403, True, 1), (503, False, 3), (204, False, 1)]
)
def test_only_transient_failures_are_retried(server: ImageServer, status: int, permanent: bool, tries: int) -> None:
    path = f"/status-{status}"
    error = failure(server.on(path, answer(status)), QUICK)
    assert (error.reason, error.permanent, server.requests[path]) == (f"http {status}", permanent, tries)


def test_a_retry_after_a_transient_failure_succeeds(server: ImageServer) -> None:
    assert download(server.on("/flaky", answer(500), answer(body=jpeg(6))), QUICK) == jpeg(6)


def test_the_retry_waits_for_retry_after(server: ImageServer) -> None:
    url = server.on("/busy", answer(429, Retry_After="1"), answer(body=jpeg(7)))
    waits: list[float] = []
    download_into(url, BytesIO(), replace(QUICK, retry_after_seconds=1.5), waits.append)
    assert waits == [1.0]


def test_retry_after_may_be_a_date(server: ImageServer) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    url = server.on("/dated", answer(503, Retry_After=date), answer(body=jpeg(7)))
    waits: list[float] = []
    download_into(url, BytesIO(), replace(QUICK, retry_after_seconds=90, total_seconds=100), waits.append)
    assert 55 < waits[0] <= 60


def test_a_long_retry_after_fails(server: ImageServer) -> None:
    url = server.on("/later", answer(429, Retry_After="3600"))
    error = failure(url, QUICK)
    assert (error.reason, error.permanent, server.requests["/later"]) == ("http 429", False, 1)


@pytest.mark.parametrize(
    ("head", "then"),
    [
        (HEAD + b"Content-Length: 100000\r\n\r\n", b"\xff"),
        (HEAD + b"\r\n", b"\xff"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n\xff\r\n"),
        (HEAD, b"X: y\r\n"),
        (b"", b"H"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["body", "body without a length", "chunks", "headers", "status", "continue"],
)
def test_a_slow_response_ends_at_the_deadline(server: ImageServer, head: bytes, then: bytes) -> None:
    url = server.on("/slow", trickle(head, then, every=0.05))
    started = time.monotonic()
    error = failure(url, replace(ONCE, total_seconds=0.4))
    assert (error.reason, error.permanent) == ("timed out", False)
    # The server would continue until the test ends.
    assert time.monotonic() - started < 10


def test_a_server_that_stops_sending_times_out(server: ImageServer) -> None:
    ended = threading.Event()

    def send_nothing(handler: BaseHTTPRequestHandler) -> None:
        ended.wait(60)

    url = server.on("/silent", send_nothing)
    assert failure(url).reason == "timed out"
    ended.set()


def test_a_host_that_never_answers_times_out() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(full.getsockname())
        error = failure(f"http://127.0.0.1:{full.getsockname()[1]}/x.jpg", replace(ONCE, connect_seconds=0.2))
        for filler in fillers:
            filler.close()
    assert (error.reason, error.permanent) == ("timed out", False)


def test_an_endless_body_ends_at_the_limit(server: ImageServer) -> None:
    url = server.on("/endless", trickle(HEAD + b"\r\n", bytes(1 << 18), every=0.0))
    error = failure(url)
    assert (error.reason, error.permanent) == ("too large", True)


def test_a_declared_size_over_the_limit_is_not_read(server: ImageServer) -> None:
    url = server.on("/large", lambda handler: handler.wfile.write(HEAD + b"Content-Length: 99999999999\r\n\r\n"))
    assert failure(url).reason == "too large"


def test_an_image_of_exactly_the_maximum_size_is_downloaded(server: ImageServer) -> None:
    assert download(server.url("/8.jpg"), replace(ONCE, max_bytes=len(jpeg(8)))) == jpeg(8)
    assert failure(server.url("/8.jpg"), replace(ONCE, max_bytes=len(jpeg(8)) - 1)).reason == "too large"


def test_a_body_shorter_than_declared_fails(server: ImageServer) -> None:
    url = server.on("/short", answer(body=jpeg(9)[:-9], Content_Length=str(len(jpeg(9)))), answer(body=jpeg(9)))
    assert download(url, QUICK) == jpeg(9)
    assert failure(server.on("/short", answer(body=b"\xff", Content_Length="9"))).reason == "broken off"


def test_a_retry_overwrites_the_first_try(server: ImageServer) -> None:
    url = server.on("/half", answer(body=jpeg(9) * 2, Content_Length="99999"), answer(body=jpeg(1)))
    assert download(url, QUICK) == jpeg(1)


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate, gzip"])
def test_encoded_bodies_are_refused(server: ImageServer, encoding: str) -> None:
    bomb = gzip.compress(bytes(1 << 22))
    error = failure(server.on("/bomb", answer(body=bomb, Content_Encoding=encoding)))
    assert (error.reason, error.permanent) == ("encoded", True)


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/json", "video/mp4"])
def test_content_types_other_than_images_are_refused(server: ImageServer, kind: str) -> None:
    error = failure(server.on("/typed", answer(body=b"<html>", kind=kind)))
    assert (error.reason, error.permanent) == ("not an image", True)
    assert kind.partition(";")[0] in error.detail


@pytest.mark.parametrize("kind", [None, "application/octet-stream", "Binary/Octet-Stream"])
def test_without_a_content_type_the_first_bytes_decide(server: ImageServer, kind: str | None) -> None:
    assert download(server.on("/untyped", answer(body=jpeg(2), kind=kind)), ONCE) == jpeg(2)
    assert failure(server.on("/untyped", answer(body=b"<html>", kind=kind))).reason == "not an image"


def test_a_corrupt_image_is_downloaded(server: ImageServer) -> None:
    assert download(server.on("/corrupt", answer(body=b"no image", kind="IMAGE/JPEG")), ONCE) == b"no image"


def test_an_empty_body_fails(server: ImageServer) -> None:
    assert failure(server.on("/empty", answer())).reason == "empty"


def test_a_closed_port_fails_as_refused() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        error = failure(f"http://127.0.0.1:{nobody.getsockname()[1]}/x.jpg")
    assert (error.reason, error.permanent) == ("refused", False)


def test_an_unknown_host_fails_permanently() -> None:
    assert failure("http://nowhere.invalid/x.jpg").reason == "no such host"


@pytest.mark.parametrize("nonsense", [b"SSH-2.0-OpenSSH\r\n", b"\0" * 100 + b"\r\n", b"HTTP/1.1 abc\r\n\r\n", b""])
def test_a_response_that_is_not_http_fails(server: ImageServer, nonsense: bytes) -> None:
    url = server.on("/nonsense", lambda handler: handler.wfile.write(nonsense))
    assert failure(url).reason in ("broken off", "http 204")


def test_a_full_disk_is_not_a_failure_of_the_url(server: ImageServer) -> None:
    with open("/dev/full", "w+b", buffering=0) as full, pytest.raises(OSError, match="No space"):  # noqa: PTH123
        download_into(server.url("/1.jpg"), _Unseekable(full), QUICK)


class _Unseekable:
    """/dev/full, which cannot be truncated, as a file."""

    def __init__(self, file):  # type: ignore[no-untyped-def]
        self.write = file.write
        self.seek = self.truncate = lambda *_: 0


HTTPS = """
import ssl, sys, threading
from dataclasses import replace
from features.inputs.image_urls import DownloadLimits, download
from schemas.errors import RecordError
from tests.image_server import ImageServer, jpeg

server = ImageServer()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True)
threading.Thread(target=server.serve_forever, daemon=True).start()
limits = DownloadLimits(allow_private=True, retries=0)
for host in ("localhost", "127.0.0.1"):
    try:
        assert download(f"https://{host}:{server.server_port}/1.jpg", limits) == jpeg(1)
        print("image")
    except RecordError as error:
        print(error.reason)
"""


def test_certificates_must_match_the_host_name(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost "
        f"-addext subjectAltName=DNS:localhost -keyout {key} -out {certificate}".split(),
        check=True,
        capture_output=True,
    )

    def reasons(trusted: Path) -> list[str]:
        command = [sys.executable, "-c", HTTPS, str(certificate), str(key)]
        environment = os.environ | {"SSL_CERT_FILE": str(trusted)}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=60
        ).stdout.split()

    assert reasons(certificate) == ["image", "certificate"]
    assert reasons(tmp_path / "none.pem") == ["certificate", "certificate"]
