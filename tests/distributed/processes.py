"""Starts server processes on loopback with a log each, waits for them, kills and stops them by ID."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_POLL_SECONDS = 0.2
_STOP_SECONDS = 15


class Process:
    """A program in a session of its own.

    Args:
        name: str. What it is called in messages; its log is `<logs>/<name>.log`.
        command: sequence of str. The program and its arguments.
        logs: Path. Where its output goes.
        environment: mapping. What it has in its environment beside this process'.
    """

    def __init__(self, name: str, command: Sequence[str], logs: Path, environment: Mapping[str, str] | None = None):
        logs.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.log = logs / f"{name}.log"
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its id."""
        return self._process.pid

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL for it alone; what it started lives on."""
        self._process.kill()
        self._process.wait()

    def wait(self, seconds: float) -> int:
        """Its exit status, once it has ended."""
        return self._process.wait(seconds)

    def stop(self) -> None:
        """End it and all that it started."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.pid, sign)
                self._process.wait(_STOP_SECONDS)
            except ProcessLookupError:
                break
            except subprocess.TimeoutExpired:
                continue

    def children(self) -> list[int]:
        """The ids of the processes that it started and that have not ended."""
        tasks = Path(f"/proc/{self.pid}/task")
        return [int(pid) for path in tasks.glob("*/children") for pid in path.read_text().split() if _lives(int(pid))]

    def wait_for(self, is_ready: Callable[[], bool], seconds: float) -> None:
        """Wait until `is_ready`; where it ends or time runs out, stop it: AssertionError with the end of its log."""
        deadline = time.monotonic() + seconds
        while not is_ready():
            if not self.is_running() or time.monotonic() > deadline:
                how = f"is not ready after {seconds:.0f} s" if self.is_running() else "ended"
                self.stop()
                raise AssertionError(f"{self.name} {how}: {self.tail()}")
            time.sleep(_POLL_SECONDS)

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-2000:]


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def is_listening(port: int) -> bool:
    """Whether somebody listens on a port of loopback."""
    with socket.socket() as one:
        one.settimeout(1)
        return one.connect_ex(("127.0.0.1", port)) == 0


def missing_programs(*names: str) -> list[str]:
    """Those of the programs that are not on the path."""
    return [name for name in names if not shutil.which(name)]
