"""A model survives three weeks: kills in every stage, two starts at once, corrupt data, and the same data twice."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import capt
from features.store import open_store
from tests.workflows.retraining.weeks import save_network, scenes, spoil, write_config

pytestmark = pytest.mark.slow

ACCEPT_ALL = {"min_improvement": -100.0}
REJECT_ALL = {"min_improvement": 100.0}

# Runs capt, and kills the process before or after the call of a function.
CRASH = """
import importlib, os, signal, sys
moment, module, *names = sys.argv[1:3] + sys.argv[3].split(".")
owner = importlib.import_module(module)
for name in names[:-1]:
    owner = getattr(owner, name)
original = getattr(owner, names[-1])
def crash(*args, **options):
    if moment == "after":
        original(*args, **options)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(owner, names[-1], crash)
sys.argv = ["capt", *sys.argv[4:]]
import capt
capt.main()
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    save_network(tmp_path / "network.keras")
    return tmp_path


def start(root: Path, gate: dict[str, Any], *program: str) -> subprocess.Popen[str]:
    """Starts `capt retrain` in a process of its own."""
    command = [sys.executable, *(program or ("-m", "capt")), "retrain", str(write_config(root, gate=gate)), "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))


def finish(process: subprocess.Popen[str], code: int = 0) -> dict[str, Any]:
    """Returns the JSON output of a process that ends with this exit code."""
    out, errors = process.communicate(timeout=540)
    assert process.returncode == code, errors[-3000:]
    return json.loads(out.splitlines()[-1]) if out else {"errors": errors}


def kill_at_file(root: Path, pattern: str) -> None:
    """Starts a retraining and kills it as soon as a file of the store matches the pattern."""
    process = start(root, ACCEPT_ALL)
    deadline = time.monotonic() + 240
    while not any((root / "store").glob(pattern)):
        assert process.poll() is None, process.communicate()[1][-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def crash(root: Path, moment: str, module: str, function: str) -> None:
    """Starts a retraining that is killed `before` or `after` it calls a function."""
    process = start(root, ACCEPT_ALL, "-c", CRASH, moment, module, function)
    errors = process.communicate(timeout=540)[1]
    assert process.returncode == -signal.SIGKILL, errors[-3000:]


def test_three_weeks(root: Path) -> None:
    scenes(root / "scenes", 100)
    kill_at_file(root, "networks/*")
    kill_at_file(root, "models/shapes/runs/*/checkpoints/*/*")
    together = [start(root, ACCEPT_ALL), start(root, ACCEPT_ALL)]
    for process in together:
        process.wait(timeout=540)
    assert sorted(process.returncode for process in together) == [0, 5]
    locked_out = next(process for process in together if process.returncode == 5)
    assert "retrain-shapes.lock" in finish(locked_out, 5)["errors"]
    first = finish(next(process for process in together if process.returncode == 0))
    assert first["decision"] == "promoted"

    scenes(root / "scenes", 600)
    pipeline, registry = "workflows.retraining.pipeline", "workflows.model_registry"
    crash(root, "before", pipeline, "read_snapshot")
    crash(root, "before", pipeline, "promotion_gate.evaluate_challenger")
    crash(root, "before", registry, "RegisteredModel.promote_over")
    assert [one["decision"] for one in capt.models_show(store=str(root / "store"))["history"]] == ["promoted"]
    crash(root, "after", registry, "RegisteredModel.promote_over")
    second = finish(start(root, ACCEPT_ALL))
    assert second["decision"] == "no_change"
    assert second["champion"] != first["champion"]

    spoil(scenes(root / "scenes", 700), 100)
    assert finish(start(root, ACCEPT_ALL), 3)["decision"] == "stopped"

    scenes(root / "scenes", 600)
    assert finish(start(root, ACCEPT_ALL))["decision"] == "no_change"

    scenes(root / "scenes", 610)
    assert finish(start(root, REJECT_ALL))["decision"] == "rejected"
    assert finish(start(root, REJECT_ALL))["decision"] == "no_change"

    history = capt.models_show(store=str(root / "store"))["history"]
    assert [one["decision"] for one in history] == ["promoted", "promoted", "stopped", "rejected"]
    assert all(one["reasons"] for one in history)
    assert history[-1]["champion"] == second["champion"]
    assert len({one["run"] for one in history}) == 4, "no run is trained twice"

    result = capt.store_verify(store=str(root / "store"))
    assert not any(result[kind] for kind in ("damaged", "missing", "orphaned"))
    table = open_store(root / "store").feature_tables()[0]
    assert sum(shard.rows for shard in table.shards) == table.rows, "no image is extracted twice"
