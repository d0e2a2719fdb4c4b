"""Serves images, redirects, errors and invalid responses over HTTP on loopback."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

from tests.conftest import noise_image

Answer = Callable[[BaseHTTPRequestHandler], None]


class ImageServer(ThreadingHTTPServer):
    """Answers `/N.jpg` with the N-th noise image, registered paths as registered, and others with 404."""

    daemon_threads = True

    def __init__(self, host: str = "127.0.0.1") -> None:
        super().__init__((host, 0), _Handler)
        self.requests: Counter[str] = Counter()
        self.headers: dict[str, dict[str, str]] = {}
        self.starts: list[float] = []
        self.most_at_once = 0
        self.seconds = 0.0
        self.lock = threading.Lock()
        self.now = 0
        self.answers: dict[str, Answer] = {}

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_port}{path}"

    def on(self, path: str, *answers: Answer) -> str:
        """Registers a path's answers, of which the last is repeated; returns its URL."""
        waiting = list(answers)

        def send(handler: BaseHTTPRequestHandler) -> None:
            (waiting.pop(0) if len(waiting) > 1 else waiting[0])(handler)

        self.answers[path] = send
        return self.url(path)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients hang up in many tests."""


class _Handler(BaseHTTPRequestHandler):
    server: ImageServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.server
        with server.lock:
            server.requests[self.path] += 1
            server.headers[self.path] = dict(self.headers)
            server.starts.append(time.monotonic())
            server.now += 1
            server.most_at_once = max(server.most_at_once, server.now)
        time.sleep(server.seconds)
        # A client may begin its next request as soon as it has the answer to this one.
        with server.lock:
            server.now -= 1
        name = self.path.removeprefix("/").removesuffix(".jpg")
        known = answer(body=jpeg(int(name))) if name.isdecimal() else answer(404)
        server.answers.get(self.path, known)(self)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def image_server(host: str = "127.0.0.1") -> Iterator[ImageServer]:
    """Serves on a host, or on all addresses of this machine if the host is empty."""
    with ImageServer(host) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def jpeg(number: int) -> bytes:
    """Returns the N-th noise image."""
    file = BytesIO()
    noise_image(number).save(file, "JPEG")
    return file.getvalue()


def answer(status: int = 200, body: bytes = b"", kind: str | None = "image/jpeg", **headers: str) -> Answer:
    """Returns an answer whose declared length is that of the body, unless a header declares another."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in ({"Content-Length": str(len(body)), "Content-Type": kind} | given).items():
            if value is not None:
                handler.send_header(name, value)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(body)

    return send


def redirect(location: str, status: int = 302) -> Answer:
    return answer(status, Location=location)


def trickle(head: bytes, then: bytes, every: float) -> Answer:
    """Returns an answer that sends raw bytes, then `then` at intervals until the client hangs up."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(head)
        while True:
            time.sleep(every)
            handler.wfile.write(then)

    return send
