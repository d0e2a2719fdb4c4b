"""Stand-ins for `java`: scripts on the path that hang, die, or only tokenize; and whether they are gone."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

REQUIRED = os.environ.get("CAPT_REQUIRE_JAVA") == "1"
HERE = any((Path(place) / "java").exists() for place in os.environ.get("PATH", "").split(os.pathsep))
needs_java = pytest.mark.skipif(not HERE and not REQUIRED, reason="there is no java on the path")

# What answers to PTB's tokenizer; the rest of the script is METEOR.
TOKENIZES = 'case "$*" in *PTBTokenizer*) exec tr A-Z a-z;; esac'
HANGS = 'echo $$ >> "$0.pids"; sleep 300 & echo $! >> "$0.pids"; wait'
DIES = "echo no memory left >&2; exit 3"

MakeJava = Callable[[str], Path]


@pytest.fixture
def make_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeJava:
    """Puts a script on the path as `java`, before all others; gives its path."""

    def make(script: str) -> Path:
        path = tmp_path / "programs" / "java"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", str(path.parent), prepend=os.pathsep)
        return path

    return make


@pytest.fixture
def no_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))


def are_gone(java: Path) -> bool:
    """Whether the script ran, and neither it nor what it started runs any more, within ten seconds."""
    pids = [int(line) for line in Path(f"{java}.pids").read_text().split()]
    ends = time.monotonic() + 10
    while time.monotonic() < ends and any(map(_runs, pids)):
        time.sleep(0.01)
    return bool(pids) and not any(map(_runs, pids))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] != "Z"
    except FileNotFoundError:
        return False
