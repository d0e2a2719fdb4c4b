"""Spending: the time that a benchmark's long work took, kept in a file, so that it adds up over attempts."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def timed(path: Path) -> Iterator[list[str]]:
    """Adds to the file what its body took: `seconds`, and `cpu_seconds` of all of this process's threads.

    Nothing is added where the body writes into the list why not.
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
