"""A server answers only requests that may be answered, within its limits, and says why it refuses the others."""

import os
import random
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

from schemas.errors import CaptError, UsageError
from schemas.options.serving import CaptionRequest, RecognizeRequest, Serve
from tests.workflows.serving.http_client import Client, encode_form
from workflows.serving.command import serve, start
from workflows.serving.limits import ServingLimits

TASKS = {"/v1/caption": CaptionRequest, "/v1/recognize": RecognizeRequest}
KEY = "a-key-for-the-tests"


@pytest.fixture(scope="module")
def guarded(captcha_run: Path, tmp_path_factory) -> Iterator[Client]:
    """A server with a key and small limits."""
    key = tmp_path_factory.mktemp("key") / "key"
    key.write_text(f"{KEY}\n")
    limits = ServingLimits(max_body_bytes=100_000, max_pixels=10_000, max_images=3, header_seconds=1, body_seconds=1)
    options = {"runs": [captcha_run], "host": "0.0.0.0", "port": 0, "api_key_file": key, "allowed_host": ["capt.test"]}
    with start(Serve.parse(options), limits) as server:
        yield Client(f"http://127.0.0.1:{urlsplit(server['url']).port}/")


def open_connection(client: Client) -> socket.socket:
    address = urlsplit(client.url)
    return socket.create_connection((str(address.hostname), address.port), timeout=30)


def authorized(key: str = KEY) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_other_machines_need_a_key(captcha_run) -> None:
    with pytest.raises(UsageError, match="--host"):
        serve(Serve.parse({"runs": [captcha_run], "host": "0.0.0.0", "port": 0}))


def test_a_key_file_has_one_line(captcha_run, tmp_path) -> None:
    path = tmp_path / "key"
    for content in ("", "two words", "two\nlines"):
        path.write_text(content)
        with pytest.raises(UsageError, match="--api-key-file"):
            serve(Serve.parse({"runs": [captcha_run], "port": 0, "api_key_file": path}))


def test_a_request_without_the_key_is_refused(guarded) -> None:
    for headers in ({}, authorized("wrong"), {"Authorization": KEY}, {"Authorization": "Bearer"}):
        for path in ("v1/models", "metrics"):
            answer = guarded.send(path, headers=headers)
            assert (answer.status, answer.code) == (401, "unauthorized")
    assert guarded.send("v1/models", headers=authorized()).status == 200
    for path in ("", "healthz"):
        assert guarded.send(path).status == 200


def test_a_foreign_host_or_origin_is_refused(guarded, client) -> None:
    for host in ("evil.test", "evil.test:8080", "127.0.0.1.evil.test", "", "[::1"):
        answer = client.send("v1/models", headers={"Host": host})
        assert (answer.status, answer.code) == (403, "forbidden_host"), host
    for host in ("localhost:1", "192.0.2.7", "[2001:db8::1]:80", "CAPT.test"):
        assert guarded.send("v1/models", headers={**authorized(), "Host": host}).status == 200, host
    own = urlsplit(client.url).netloc
    for origin in ("http://evil.test", "null", f"http://{own}.evil.test", "http://[", f"{own}"):
        answer = client.send("v1/caption", b"x", headers={"Origin": origin})
        assert (answer.status, answer.code) == (403, "forbidden_origin"), origin
    answer = client.send("v1/models", headers={"Origin": f"http://{own}"})
    assert answer.status == 200
    assert "access-control-allow-origin" not in answer.headers


def test_every_response_has_the_security_headers(guarded, client) -> None:
    for answer in (client.send(""), client.send("none"), guarded.send("v1/models"), client.send("", method="PUT")):
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "server" not in answer.headers
    assert client.send("").headers["content-type"].startswith("text/html")


def test_the_openapi_document_describes_every_path_and_option(guarded, client) -> None:
    document = client.send("openapi.json").json
    parameters = {path: {one["name"] for one in document["paths"][path]["post"]["parameters"]} for path in TASKS}
    assert parameters == {path: set(options.model_fields) for path, options in TASKS.items()}
    for path, methods in document["paths"].items():
        for method in methods:
            assert client.send(path[1:], method=method.upper()).status != 404
    assert "security" not in document
    assert guarded.send("openapi.json", headers=authorized()).json["security"] == [{"key": []}]


def test_unknown_paths_and_methods_are_errors(client) -> None:
    assert (client.send("v1/none").status, client.send("v1/none").code) == (404, "not_found")
    assert client.send("v1/models/").status == 404
    answer = client.send("v1/caption")
    assert (answer.status, answer.code) == (405, "method_not_allowed")


def test_a_body_is_limited_before_it_is_decoded(guarded, captchas) -> None:
    def send(body, kind="image/png"):
        return guarded.send("v1/recognize", body, kind, headers=authorized())

    assert send(captchas[0].data).status == 200
    for body in (b"x" * 100_001, iter([b"x" * 60_000] * 2), b"x" * 390_000):
        answer = send(body)
        assert (answer.status, answer.code) == (413, "body_too_large")
    form = encode_form([(str(number), b"x") for number in range(4)])
    answer = send(form, "multipart/form-data; boundary=part-of-a-form")
    assert (answer.status, answer.code) == (413, "too_many_images")


def test_an_image_with_too_many_pixels_is_not_decoded(guarded, tmp_path) -> None:
    Image.new("L", (101, 100)).save(tmp_path / "a.png")
    answer = guarded.send("v1/recognize", (tmp_path / "a.png").read_bytes(), headers=authorized())
    assert "too large" in answer.json["results"][0]["error"]


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"", "image/png", 400, "no_image"),
        (b"x", "text/plain", 415, "unsupported_media_type"),
        (b"x", "", 415, "unsupported_media_type"),
        (b"x", "multipart/form-data", 400, "no_image"),
        (b"x", "multipart/form-data; boundary=b", 400, "no_image"),
        (b"--b--\r\n", "multipart/form-data; boundary=b", 400, "no_image"),
        (encode_form([("a.png", b"x")], "file"), "multipart/form-data; boundary=part-of-a-form", 400, "no_image"),
        (
            encode_form([("a.png", b"x")]),
            "multipart/form-data; boundary=part-of-a-form; charset=undefined",
            400,
            "no_image",
        ),
        (b"{", "application/json", 400, "no_image"),
        (b"[" * 60_000, "application/json", 400, "no_image"),
        (b'{"url": "file:///etc/passwd"}', "application/json", 400, "no_image"),
        (b'{"url": "http://a.test/", "more": 1}', "application/json", 400, "no_image"),
        (b'{"url": 7}', "application/json", 400, "no_image"),
    ],
)
def test_a_body_without_an_image_is_an_error(client, body: bytes, kind: str, status: int, code: str) -> None:
    answer = client.send("v1/caption", body, kind)
    assert (answer.status, answer.code) == (status, code)


@pytest.mark.parametrize("sent", ["", "GET / HTT", "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"])
def test_a_connection_without_a_request_is_closed(guarded, sent: str) -> None:
    with open_connection(guarded) as connection:
        connection.sendall(sent.encode())
        assert connection.recv(1) == b""


def test_a_body_that_does_not_arrive_is_an_error(guarded) -> None:
    head = "POST /v1/recognize HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\nContent-Length: 9\r\n"
    with open_connection(guarded) as connection:
        connection.sendall(f"{head}Authorization: Bearer {KEY}\r\n\r\nabc".encode())
        assert connection.recv(12) == b"HTTP/1.1 408"


def test_malformed_requests_are_errors_of_the_client(guarded, captchas, caplog) -> None:
    generator = random.Random(7)
    kinds = ("multipart/form-data; charset=unicode_escape; boundary=part-of-a-form", "image/png", "application/json")
    sound = {
        kinds[0]: encode_form([("a\\ud800.png", captchas[0].data)]),
        kinds[1]: captchas[0].data,
        kinds[2]: b'{"url": "http://127.0.0.1:1/a.png"}',
    }
    statuses = Counter()
    for number in range(120):
        kind = kinds[number % 3]
        head = f"POST /v1/recognize?min_confidence=0.5 HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        head += f"Authorization: Bearer {KEY}\r\n"
        request = bytearray(f"{head}Content-Length: {len(sound[kind])}\r\n\r\n".encode() + sound[kind])
        for _ in range(generator.choice((0, 1, 3, 20))):
            request[generator.randrange(generator.choice((len(head), len(request))))] = generator.randrange(256)
        with open_connection(guarded) as connection:
            connection.sendall(request)
            answer = connection.recv(12)
        statuses[answer[9:12].decode()] += 1
    assert set(statuses) <= {"200", "400", "401", "403", "404", "405", "408", "413", "415", ""}, statuses
    assert statuses["200"] > 20
    assert not [record for record in caplog.records if record.name.startswith("capt")]


def test_a_client_that_leaves_does_not_stop_the_server(client, shown) -> None:
    address = urlsplit(client.url)
    with open_connection(client) as connection:
        head = f"POST /v1/caption HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: image/png\r\n"
        connection.sendall(f"{head}Content-Length: 1000\r\n\r\nabc".encode())
    assert client.send("v1/caption", shown[0].data).status == 200


def test_nothing_of_a_request_is_stored_or_logged(client, shown, caplog, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tempfile.TemporaryFile", None)
    large = shown[0].data + b"x" * (2 << 20)
    assert client.send_form("v1/caption", [("secret.png", large)]).status == 200
    assert not caplog.records


def test_a_port_in_use_is_an_error(server, captcha_run) -> None:
    port = urlsplit(server["url"]).port
    with pytest.raises(CaptError, match=str(port)):
        serve(Serve.parse({"runs": [captcha_run], "port": port}))


def test_two_runs_of_one_name_are_an_error(captcha_run) -> None:
    with pytest.raises(UsageError, match="captcha"):
        serve(Serve.parse({"runs": [captcha_run, f"{captcha_run}{os.sep}."], "port": 0}))
