"""Runs an ASGI application with uvicorn in a thread, until it is stopped."""

import asyncio
import signal
import socket
import threading
from collections.abc import Callable

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from schemas.errors import CaptError
from workflows.serving.limits import ServingLimits


class _Connection(H11Protocol):
    """Closes a connection whose next request does not begin in time, also one that sends a header byte by byte."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def data_received(self, data: bytes) -> None:
        # uvicorn ends the timer with the first byte.
        timer, self.timeout_keep_alive_task = self.timeout_keep_alive_task, None
        super().data_received(data)
        if timer and self.timeout_keep_alive_task is None and self.conn.their_state is h11.IDLE:
            self.timeout_keep_alive_task = timer
        elif timer:
            timer.cancel()


class HttpServer:
    """A running server. It finishes the requests in progress before it ends.

    Args:
        application: Answers the requests.
        listener: The socket on which the server listens.
        limits: Time-outs.
    """

    def __init__(self, application: ASGIApp, listener: socket.socket, limits: ServingLimits) -> None:
        config = uvicorn.Config(
            application,
            loop="asyncio",
            http=_Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=limits.header_seconds,
            timeout_graceful_shutdown=int(limits.shutdown_seconds),
        )
        self._server = uvicorn.Server(config)
        self._listener = listener
        self._thread = threading.Thread(target=self._run, name="HTTP server", daemon=True)
        self._thread.start()

    def request_stop(self) -> None:
        """Accepts no more connections; a second call also ends the requests in progress."""
        self._server.force_exit = self._server.should_exit
        self._server.should_exit = True

    def join(self) -> None:
        """Waits for the end of the server."""
        self._thread.join()

    def wait_for_signal(self, stop: Callable[[], None]) -> None:
        """Waits for the end of the server; SIGINT and SIGTERM call `stop`. Main thread only."""
        earlier = {number: signal.signal(number, lambda *_: stop()) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            # A thread that is joined without a time-out would delay the handlers.
            while self._thread.is_alive():
                self._thread.join(0.2)
        finally:
            for number, handler in earlier.items():
                signal.signal(number, handler)

    def _run(self) -> None:
        asyncio.run(self._server.serve([self._listener]))


def listen(host: str, port: int) -> socket.socket:
    """Opens a socket that listens on a host and port; CaptError if they cannot be used."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        opened = socket.socket(family, kind, protocol)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind(address)
            opened.listen(socket.SOMAXCONN)
        except BaseException:
            opened.close()
            raise
    except (OSError, UnicodeError) as error:
        hint = "Choose another --port, such as 0, which selects a free one, or another --host."
        reason = getattr(error, "strerror", None) or str(error)
        raise CaptError(f"the server cannot listen: {reason}", location=f"{host}:{port}", hint=hint) from None
    return opened
