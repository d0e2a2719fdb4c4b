"""Starts each runner once for all tests, computes the expected checksums locally, and prints a table of results."""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.engines import KINDS, Engine
from tests.distributed.jobs import Inputs, Job, checksums

# Engines that must run here, with commas between: not to be skipped where a program is missing.
REQUIRED = set(filter(None, os.environ.get("CAPT_REQUIRE_ENGINES", "").split(",")))
_ROWS = pytest.StashKey[list["Outcome"]]()
_MISSING = pytest.StashKey[set[str]]()


@dataclass(frozen=True)
class Outcome:
    """A row of the table: an engine's job, how long it took, and whether it gave the local runner's bytes."""

    engine: str
    job: str
    seconds: float
    is_equal: bool


Compare = Callable[[Engine, Job, Path], None]


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    made = Inputs(tmp_path_factory.mktemp("inputs"))
    made.make()
    return made


@pytest.fixture(scope="session")
def locally(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Job], dict[str, str]]:
    """The checksums that the local runner gives for a job, which is done once."""
    known: dict[Job, dict[str, str]] = {}

    def given(job: Job) -> dict[str, str]:
        if job not in known:
            store = tmp_path_factory.mktemp("local") / "store"
            job.run(store)
            known[job] = checksums(store)
        return known[job]

    return given


@pytest.fixture(scope="session", params=KINDS)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    yield from _started(request, tmp_path_factory, request.param)


@pytest.fixture(scope="session")
def flink(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A cluster of its own, for tests that kill parts of it."""
    yield from _started(request, tmp_path_factory, "flink")


@pytest.fixture
def compare(request: pytest.FixtureRequest, locally: Callable[[Job], dict[str, str]]) -> Callable[..., None]:
    """Holds what a job gave on an engine against the local runner, and notes it for the table."""

    def held(name: str, job: Job, store: Path, started: float) -> None:
        seconds = time.monotonic() - started
        got, expected = checksums(store), locally(job)
        request.config.stash.setdefault(_ROWS, []).append(Outcome(name, job.name, seconds, got == expected))
        assert got == expected

    return held


def _started(request: pytest.FixtureRequest, paths: pytest.TempPathFactory, name: str) -> Iterator[Engine]:
    kind = KINDS[name]
    if kind.missing() and name not in REQUIRED:
        request.config.stash.setdefault(_MISSING, set()).add(kind.missing())
        pytest.skip(kind.missing())
    with kind.start(paths.mktemp(name)) as engine:
        yield engine


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    rows = config.stash.get(_ROWS, [])
    if rows:
        terminalreporter.section("engines")
        terminalreporter.line(f"{'engine':<28} {'job':<34} {'seconds':>8}  checksums equal")
    for row in rows:
        terminalreporter.line(f"{row.engine:<28} {row.job:<34} {row.seconds:>8.1f}  {'yes' if row.is_equal else 'NO'}")
    for why in sorted(config.stash.get(_MISSING, set())):
        terminalreporter.line(f"not run: {why}")
