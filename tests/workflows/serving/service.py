"""Runs `capt serve` in a process of its own, which can stop and start again at the same address."""

import os
import signal
import socket
import time
import urllib.request
from pathlib import Path

from tests.commands import CommandServer, ForkedProcess

_SECONDS = 120  # to start
_MAX_SECONDS = 1200  # to run, if nothing stops it


class Service:
    """`capt serve` with some runs on a free port of 127.0.0.1; a context manager."""

    def __init__(self, commands: CommandServer, log: Path, *arguments: str | Path) -> None:
        self._commands, self._log = commands, log
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/"
        self._arguments = ["serve", *map(str, arguments), "--port", str(self._port)]
        self._process: ForkedProcess | None = None

    def __enter__(self) -> "Service":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Returns when the server answers."""
        self._process = self._commands.start(self._arguments, stderr=self._log, seconds=_MAX_SECONDS)
        end = time.monotonic() + _SECONDS
        while not self._answers():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < end, self._log.read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        """Ends the server as its shutdown does."""
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGTERM)
            self._process.wait()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}healthz", timeout=10) as response:
                return bool(response.status == 200)
        except OSError:
            return False
