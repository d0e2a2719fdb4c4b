"""Measures wall time and CPU time, and accumulates them over attempts in a file."""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Cost:
    """The cost of a function.

    Args:
        clock: Wall time in seconds.
        processor: CPU time in seconds, of all threads and of waited-for processes.
    """

    clock: float
    processor: float

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(self.clock - other.clock, self.processor - other.processor)


def measure_cost(work: Callable[[], Any]) -> Cost:
    """Measures a call of `work`."""
    before = _now()
    work()
    return _now() - before


def measure_command(*command: str | int | Path) -> Cost:
    """Measures a command of capt in a process of its own, with its start. Raises CalledProcessError if it fails."""
    words = [sys.executable, "-c", "import capt; capt.main()", *map(str, command), "--quiet"]
    return measure_cost(lambda: subprocess.run(words, check=True, stdout=subprocess.DEVNULL))


def _now() -> Cost:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return Cost(time.monotonic(), sum(one.ru_utime + one.ru_stime for one in used))


@contextmanager
def timed(path: Path) -> Iterator[list[str]]:
    """Adds `seconds` and `cpu_seconds` of the block to a file.

    Nothing is added if the block appends a reason to the list.
    """
    before = json.loads(path.read_text()) if path.is_file() else {"seconds": 0.0, "cpu_seconds": 0.0}
    wall, cpu = time.monotonic(), time.process_time()
    idle: list[str] = []
    try:
        yield idle
    finally:
        if not idle:
            path.parent.mkdir(parents=True, exist_ok=True)
            spent = {"seconds": time.monotonic() - wall, "cpu_seconds": time.process_time() - cpu}
            path.write_text(json.dumps({name: round(before[name] + spent[name], 1) for name in spent}))
