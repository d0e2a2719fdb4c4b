"""A proxy on loopback before a server of object stores: it lets requests through, or fails them as it is told."""

import http.client
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, quote, urlsplit

# What becomes of a request: it is passed on; the connection is reset before, or after, it is passed on; the service is
# busy; half of the answer's body comes.
Fate = Literal["pass", "reset", "lost", "busy", "half"]

ENDPOINTS = ("AWS_ENDPOINT_URL", "STORAGE_EMULATOR_HOST")


@dataclass
class Faults:
    """What the next requests that match are to suffer, one after the other.

    Args:
        matches: function of method and target. Which requests are meant.
        fates: list. What becomes of them; those after the last pass.
        seen: list of str. Method and target of every request.
    """

    matches: Callable[[str, str], bool] = lambda method, target: True
    fates: list[Fate] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def plan(self, fates: list[Fate], matches: Callable[[str, str], bool] = lambda method, target: True) -> None:
        """Have these become of the next requests that match."""
        with self.lock:
            self.matches, self.fates, self.seen = matches, list(fates), []

    def next(self, method: str, target: str) -> Fate:
        """The fate of a request that has just come."""
        with self.lock:
            self.seen.append(f"{method} {target}")
            return self.fates.pop(0) if self.fates and self.matches(method, target) else "pass"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    faults: Faults
    upstream: tuple[str, int]
    writing: threading.Lock

    def handle_expect_100(self) -> bool:
        """Say at once that the body may come."""
        said = super().handle_expect_100()
        self.wfile.flush()
        return said

    def handle_any(self) -> None:
        body = self._body()
        fate = self.faults.next(self.command, self.path)
        if fate == "reset":
            self._hang_up()
        elif fate == "busy":
            self._answer(503, [("Retry-After", "0")], b"<Error><Code>SlowDown</Code></Error>", 0)
        elif "ifGenerationMatch=0" in self.path:
            with self.writing:
                if self._is_there(body):
                    self._answer(412, [], b'{"error":{"code":412,"message":"conditionNotMet"}}', 0)
                else:
                    self._pass(body, fate)
        else:
            self._pass(body, fate)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = handle_any  # noqa: N815

    def _pass(self, body: bytes, fate: Fate) -> None:
        status, headers, data, length = self._ask(self.command, self.path, body, dict(self.headers))
        if fate == "lost":
            self._hang_up()
        else:
            self._answer(status, headers, data[: len(data) // 2] if fate == "half" else data, length)
            if fate == "half":
                self._hang_up()

    def _ask(
        self, method: str, target: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, list[tuple[str, str]], bytes, int]:
        connection = http.client.HTTPConnection(*self.upstream, timeout=30)
        left_out = ("connection", "transfer-encoding", "expect", "content-length")
        sent = {name: value for name, value in headers.items() if name.lower() not in left_out}
        if body or method in ("PUT", "POST", "PATCH"):
            sent["Content-Length"] = str(len(body))
        connection.request(method, target, body or None, sent)
        answer = connection.getresponse()
        data = answer.read()
        kept = [
            (name, value) for name, value in answer.getheaders() if name.lower() not in (*left_out, "date", "server")
        ]
        length = int(answer.headers.get("Content-Length") or len(data))
        connection.close()
        return answer.status, kept, data, length

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, length: int) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(length or len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _is_there(self, body: bytes) -> bool:
        """Whether the object is there that an upload to GCS is to make, which the emulator itself does not ask."""
        parts = urlsplit(self.path)
        named = parse_qs(parts.query).get("name") or [json.loads(re.findall(rb'\{"(?:.*?)\}\r?\n', body)[0])["name"]]
        bucket = parts.path.split("/b/")[1].split("/")[0]
        status, *_ = self._ask(
            "GET", f"/storage/v1/b/{bucket}/o/{quote(named[0], safe='')}", b"", {"Host": "localhost"}
        )
        return status == 200

    def _hang_up(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        # Without lingering, closing resets the connection.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def finish(self) -> None:
        try:
            super().finish()
        except (OSError, ValueError):
            return

    def log_message(self, *_: Any) -> None:
        return


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        return


@contextmanager
def faulty(environment: dict[str, str]) -> Iterator[tuple[dict[str, str], Faults]]:
    """A proxy before the server that an environment leads to: the environment that leads to it, and its faults.

    Uploads that are made only where nothing is (`ifGenerationMatch=0`) are so even before a server that does not ask.
    """
    name = next(name for name in ENDPOINTS if name in environment)
    host, port = urlsplit(environment[name]).netloc.split(":")
    faults = Faults()
    made = {"faults": faults, "upstream": (host, int(port)), "writing": threading.Lock()}
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), made))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield {**environment, name: f"http://127.0.0.1:{server.server_address[1]}"}, faults
    finally:
        server.shutdown()
        server.server_close()
