"""Hooks get the outcome as JSON, and one that fails costs nothing."""

import json
import logging
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from workflows.retraining.config import NotificationsConfig
from workflows.retraining.notifications import notify

OUTCOME = {"decision": "promoted", "why": ["better"], "champion": "0123456789abcdef"}
KEEP = "import sys; open(sys.argv[1], 'wb').write(sys.stdin.buffer.read())"


@pytest.fixture
def server():
    """A server on loopback that keeps what it is sent, and answers with `server.status`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            self.server.got.append((self.headers["content-type"], self.rfile.read(length)))
            self.send_response(self.server.status)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    made = HTTPServer(("127.0.0.1", 0), Handler)
    made.got, made.status = [], 204
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def url_of(server: HTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}/hook"


def test_a_program_and_an_address_get_the_outcome(tmp_path: Path, server: HTTPServer) -> None:
    kept = tmp_path / "kept.json"
    notify(NotificationsConfig(command=(sys.executable, "-c", KEEP, str(kept)), url=url_of(server)), OUTCOME)
    assert json.loads(kept.read_bytes()) == OUTCOME
    assert [(kind, json.loads(data)) for kind, data in server.got] == [("application/json", OUTCOME)]


def test_nothing_new_is_told_only_where_it_is_asked_for(server: HTTPServer) -> None:
    notify(NotificationsConfig(url=url_of(server)), {**OUTCOME, "decision": "nothing new"})
    assert server.got == []
    notify(NotificationsConfig(url=url_of(server), on=("nothing new",)), {**OUTCOME, "decision": "nothing new"})
    assert len(server.got) == 1


def test_hooks_that_fail_are_warnings(server: HTTPServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "capt")
    server.status = 500
    address = url_of(server)
    notify(NotificationsConfig(command=(sys.executable, "-c", "raise SystemExit(3)"), url=address), OUTCOME)
    notify(NotificationsConfig(command=("/no/such/program",)), OUTCOME)
    notify(NotificationsConfig(command=(sys.executable, "-c", "import time; time.sleep(60)"), timeout=0.2), OUTCOME)
    notify(NotificationsConfig(url="http://127.0.0.1:9/closed", timeout=2), OUTCOME)
    said = [record.getMessage() for record in caplog.records]
    assert said[0].endswith("ended with status 3")
    assert said[1] == f"the hook {address.removesuffix('/hook')} answered 500"
    assert "/no/such/program failed" in said[2]
    assert "killed after" in said[3]
    assert "http://127.0.0.1:9 failed" in said[4]
