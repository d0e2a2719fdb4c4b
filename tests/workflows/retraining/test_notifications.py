"""A program and a webhook receive the outcome as JSON, and a failed notification is a warning."""

import json
import logging
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from workflows.retraining.config import NotificationsConfig
from workflows.retraining.notifications import notify

OUTCOME = {"decision": "promoted", "reasons": ["better"], "champion": "0123456789abcdef"}
KEEP = "import sys; open(sys.argv[1], 'wb').write(sys.stdin.buffer.read())"


@pytest.fixture
def server():
    """A loopback server that records its requests and answers with `server.status`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            self.server.requests.append((self.headers["content-type"], self.rfile.read(length)))
            self.send_response(self.server.status)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    made = HTTPServer(("127.0.0.1", 0), Handler)
    made.requests, made.status = [], 204
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def hook_url(server: HTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}/hook"


def test_a_program_and_a_webhook_receive_the_outcome(tmp_path: Path, server: HTTPServer) -> None:
    kept = tmp_path / "kept.json"
    notify(NotificationsConfig(command=(sys.executable, "-c", KEEP, str(kept)), url=hook_url(server)), OUTCOME)
    assert json.loads(kept.read_bytes()) == OUTCOME
    assert [(kind, json.loads(data)) for kind, data in server.requests] == [("application/json", OUTCOME)]


def test_no_change_is_reported_only_if_configured(server: HTTPServer) -> None:
    notify(NotificationsConfig(url=hook_url(server)), {**OUTCOME, "decision": "no_change"})
    assert server.requests == []
    notify(NotificationsConfig(url=hook_url(server), on=("no_change",)), {**OUTCOME, "decision": "no_change"})
    assert len(server.requests) == 1


def test_a_failed_notification_is_a_warning_without_secrets(
    server: HTTPServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "capt")
    server.status = 500
    address = hook_url(server)
    notify(NotificationsConfig(command=(sys.executable, "-c", "raise SystemExit(3)"), url=address), OUTCOME)
    notify(NotificationsConfig(command=("/no/such/program",)), OUTCOME)
    notify(NotificationsConfig(command=(sys.executable, "-c", "import time; time.sleep(60)"), timeout=0.2), OUTCOME)
    notify(NotificationsConfig(url="http://127.0.0.1:9/closed", timeout=2), OUTCOME)
    messages = [record.getMessage() for record in caplog.records]
    problems = ("exit code 3", "answered 500", "failed: FileNotFoundError", "killed after 0.2", "failed: ")
    for message, problem in zip(messages, problems, strict=True):
        assert problem in message
    assert f"{address.removesuffix('/hook')} " in messages[1]
    assert "raise SystemExit" not in messages[0]
    assert "closed" not in messages[4]
