"""Serves exactly the bytes that a test registers, from a raw socket on loopback."""

import contextlib
import socket
import socketserver
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Script:
    """The answer to one request.

    Args:
        first: Bytes that are sent at once.
        then: Bytes that are sent again and again afterwards, until the client hangs up; none if empty.
        pause: Seconds between two of these.
        ending: Whether the connection is closed, reset, or left open until the client hangs up.
    """

    first: bytes
    then: bytes = b""
    pause: float = 0.0
    ending: Literal["close", "reset", "hold"] = "close"


class HostileServer(socketserver.ThreadingTCPServer):
    """Answers each path with its script; `requests` counts the requests per path."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.scripts: dict[str, Script] = {}
        self.requests: Counter[str] = Counter()
        self.stopped = threading.Event()

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def on(self, path: str, script: Script, host: str = "127.0.0.1") -> str:
        """Registers a script; returns the URL of its path."""
        self.scripts[path] = script
        return f"http://{host}:{self.port}{path}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients hang up on hostile servers."""


class _Handler(socketserver.BaseRequestHandler):
    server: HostileServer

    def handle(self) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            request += self.request.recv(4096) or b"\r\n\r\n"
        path = [*request.split(b" "), b""][1].decode("latin-1")
        self.server.requests[path] += 1
        script = self.server.scripts.get(path, Script(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))
        self.request.sendall(script.first)
        while script.then and not self.server.stopped.wait(script.pause):
            self.request.sendall(script.then)
        if script.ending == "hold":
            self.request.settimeout(5)
            self.request.recv(1)
        if script.ending == "reset":
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.request.close()


@contextlib.contextmanager
def hostile_server() -> Iterator[HostileServer]:
    with HostileServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.stopped.set()
            server.shutdown()
            thread.join()
