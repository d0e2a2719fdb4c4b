"""Notifications: their secrets stay in the configuration file, and no server or program holds a retraining up."""

import base64
import gzip
import json
import logging
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

import capt
from features.store import open_store
from tests.hostile_server import HostileServer, Script, hostile_server
from workflows.model_registry import RegisteredModel
from workflows.retraining.config import NotificationsConfig, RetrainConfig
from workflows.retraining.notifications import notify
from workflows.retraining.pipeline import DataCheckError

OUTCOME = {"decision": "promoted"}
SECONDS = 0.5
OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[HostileServer]:
    with hostile_server() as server:
        yield server


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.WARNING, "capt")
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    ("script", "warned"),
    [
        (Script(OK + b"Content-Length: 1000000\r\n\r\n", then=b"x", pause=0.05), False),
        (Script(OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(1 << 26))), False),
        (Script(OK, then=b"A: b\r\n", pause=0.05), True),
        (Script(OK + b"A: ", then=b"b", pause=0.05), True),
        (Script(b"", then=b"HTTP/1.1 100 Continue\r\n\r\n", pause=0.05), True),
        (Script(b"", ending="hold"), True),
        (Script(b"", ending="reset"), True),
        (Script(b"\xff\x00 nonsense"), True),
        (Script(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"), True),
        (Script(b"HTTP/1.1 302 Found\r\nLocation: http://[\r\nContent-Length: 0\r\n\r\n"), True),
    ],
)
def test_no_answer_holds_a_retraining_up(
    server: HostileServer, warnings: Callable[[], list[str]], script: Script, warned: bool
) -> None:
    started = time.monotonic()
    notify(NotificationsConfig(url=server.on("/hook", script), timeout=SECONDS), OUTCOME)
    # Servers that trickle would go on until the test ends.
    assert time.monotonic() - started < 10 * SECONDS
    assert bool(warnings()) == warned
    assert server.requests["/elsewhere"] == 0


def test_a_server_that_takes_no_data_is_left_after_the_time_limit(warnings: Callable[[], list[str]]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        notify(NotificationsConfig(url=url, timeout=SECONDS), {**OUTCOME, "reasons": ["x" * 50_000_000]})
    assert len(warnings()) == 1


def test_a_program_is_killed_with_all_that_it_started(tmp_path: Path, warnings: Callable[[], list[str]]) -> None:
    beats = tmp_path / "beats"
    child = f"while :; do printf x >> '{beats}'; sleep 0.02; done"
    notify(NotificationsConfig(command=("sh", "-c", f'sh -c "{child}"; true'), timeout=1), OUTCOME)
    assert len(warnings()) == 1
    size = beats.stat().st_size
    assert size > 0
    time.sleep(0.3)
    assert beats.stat().st_size == size


def test_a_program_that_cannot_be_started_is_a_warning(warnings: Callable[[], list[str]]) -> None:
    for command in (("/no/such/program", "hidden"), ("a\0b", "hidden"), ("/etc/passwd", "hidden")):
        notify(NotificationsConfig(command=command), OUTCOME)
    assert len(warnings()) == 3
    assert "hidden" not in " ".join(warnings())


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hidden@127.0.0.1:1/T0/hidden?token=hidden#hidden",
        "http://nowhere.invalid/hidden",
        "https://127.0.0.1:1/hidden",
    ],
)
def test_a_url_is_logged_without_its_secrets(warnings: Callable[[], list[str]], url: str) -> None:
    notify(NotificationsConfig(url=url, timeout=SECONDS), OUTCOME)
    assert len(warnings()) == 1
    assert "hidden" not in warnings()[0]


def test_no_form_of_a_configuration_contains_its_secrets() -> None:
    notifications = NotificationsConfig(
        url="https://user:hidden@hooks.example.com:8443/hidden?hidden", command=("notify", "--token=hidden")
    )
    config = RetrainConfig(store="s", name="m", data=({"dataset_type": "folder"},), notifications=notifications)
    shown = [repr(config), str(config), config.model_dump_json(), str(config.model_dump()), str(notifications)]
    assert "hidden" not in " ".join(shown)
    dumped = config.model_dump(mode="json")["notifications"]
    assert (dumped["url"], dumped["command"]) == ("https://hooks.example.com:8443", ["notify"])


@pytest.mark.parametrize("url", ["http://", "http://[::1", "https://:80/hidden", "http://a:b:c/hidden"])
def test_a_url_without_a_host_is_wrong_usage(tmp_path: Path, url: str) -> None:
    path = tmp_path / "retrain.yaml"
    config = {
        "store": str(tmp_path / "store"),
        "name": "m",
        "data": [{"dataset_type": "coco"}],
        "notifications": {"url": url},
    }
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(capt.UsageError) as caught:
        capt.retrain(file=str(path))
    assert "hidden" not in str(caught.value)
    assert not (tmp_path / "store").exists()


def test_a_retraining_keeps_no_secret_anywhere(
    tmp_path: Path,
    server: HostileServer,
    photos: Callable[..., Path],
    coco: Callable[..., Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    images = photos(4)
    (images / f"{3:012d}.jpg").write_bytes(b"not an image")  # the data checks fail, so nothing is trained
    server.on("/hidden?hidden", Script(b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n"))
    kept = tmp_path / "kept"
    keep = "import sys; open(sys.argv[1], 'wb').write(sys.stdin.buffer.read())"
    config = {
        "store": str(tmp_path / "store"),
        "name": "shapes",
        "data": [{"dataset_type": "coco", "images": [str(images)], "annotations": [str(coco(range(4)))]}],
        "features": {"extractor": "pixels", "height": 8, "width": 8},
        "notifications": {
            "url": f"http://user:hidden@127.0.0.1:{server.port}/hidden?hidden",
            "command": [sys.executable, "-c", keep, str(kept), "hidden"],
        },
    }
    path = tmp_path / "retrain.yaml"
    path.write_text(yaml.safe_dump(config))
    with pytest.raises(DataCheckError) as stopped:
        capt.retrain(file=str(path))
    assert server.requests["/hidden?hidden"] == 1
    assert json.loads(kept.read_bytes())["decision"] == "stopped"
    (decided,) = RegisteredModel(open_store(tmp_path / "store"), "shapes").history()
    assert decided.facts.lineage["config"]["notifications"]["url"] == f"http://127.0.0.1:{server.port}"
    written = b"".join(file.read_bytes() for file in (tmp_path / "store").rglob("*") if file.is_file())
    secrets = [b"hidden", base64.b64encode(b"user:hidden")]
    said = (caplog.text + str(stopped.value) + json.dumps(stopped.value.summary)).encode()
    assert [secret for secret in secrets if secret in written + said] == []
