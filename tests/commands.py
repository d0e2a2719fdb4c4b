"""Runs capt's commands in processes that are forked from one that has imported the libraries."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

ROOT = Path(__file__).parents[1]


_RUNNING = -1000


@dataclass
class ForkedProcess:
    """A running command, with the methods of `subprocess.Popen` that the tests use."""

    server: "CommandServer"
    pid: int
    returncode: int | None = None

    def poll(self) -> int | None:
        """Returns the exit code, or None while the process runs."""
        return self._wait(poll=True)

    def wait(self) -> int:
        """Waits for the end and returns the exit code."""
        code = self._wait(poll=False)
        assert code is not None
        return code

    def communicate(self) -> tuple[bytes, bytes]:
        """Waits for the end; the output is in the files that were given."""
        self.wait()
        return b"", b""

    def kill(self) -> None:
        """Kills the process with SIGKILL."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def _wait(self, *, poll: bool) -> int | None:
        if self.returncode is None:
            code = self.server.ask({"wait": self.pid, "poll": poll})
            self.returncode = None if code == _RUNNING else code
        return self.returncode


class CommandServer:
    """Forks commands; a context manager."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
        server = [sys.executable, Path(__file__).with_name("command_server.py")]
        self._server = subprocess.Popen(
            server, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
        )

    def __enter__(self) -> "CommandServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.communicate()

    def capt(
        self, *arguments: str | Path, cwd: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command of capt and returns its exit code and output."""
        with TemporaryDirectory() as directory:
            stdout, stderr = (Path(directory) / name for name in ("stdout", "stderr"))
            code = self.start(
                list(map(str, arguments)), stdout=stdout, stderr=stderr, cwd=cwd, environment=environment
            ).wait()
            output = [path.read_text(encoding="utf-8") for path in (stdout, stderr)]
        return subprocess.CompletedProcess(["capt", *arguments], code, *output)

    def start(
        self,
        arguments: Sequence[str] | None,
        *,
        program: str = "",
        stdin: str | Path = os.devnull,
        stdout: str | Path = os.devnull,
        stderr: str | Path = os.devnull,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        seconds: int = 300,
    ) -> ForkedProcess:
        """Starts a process that runs a Python program, then a command of capt.

        Args:
            arguments: The command, or None.
            program: Code that runs before the command.
            stdin: File or terminal to read.
            stdout: File or terminal to write.
            stderr: File or terminal to write.
            cwd: Working directory.
            environment: Variables to add.
            seconds: Time after which the process is killed.
        """
        request = {
            "arguments": arguments,
            "program": program,
            "stdin": str(stdin),
            "stdout": str(stdout),
            "stderr": str(stderr),
            "directory": str(cwd or Path.cwd()),
            "environment": dict(environment or {}),
            "seconds": seconds,
        }
        return ForkedProcess(self, self.ask(request))

    def ask(self, request: dict[str, Any]) -> int:
        """Returns the server's answer."""
        assert self._server.stdin
        assert self._server.stdout
        print(json.dumps(request), file=self._server.stdin, flush=True)
        return int(self._server.stdout.readline())
