"""Three weeks of a model: killed in every stage, started twice at once, fed a bad batch and the same data twice."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import capt
from features.store import open_store
from tests.workflows.retraining.weeks import save_network, scenes, spoil, written

pytestmark = pytest.mark.slow

CONFIDENCE_LEVEL = 0.9


@pytest.fixture
def root(tmp_path: Path) -> Path:
    save_network(tmp_path / "network.keras")
    return tmp_path


def start(root: Path) -> subprocess.Popen[str]:
    """`capt retrain` in a process of its own."""
    command = [sys.executable, "-m", "capt", "retrain", str(written(root, gate={"level": CONFIDENCE_LEVEL})), "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))


def finish(process: subprocess.Popen[str], status: int = 0) -> dict[str, Any]:
    """What it printed, once it has ended with that status."""
    out, errors = process.communicate(timeout=540)
    assert process.returncode == status, errors[-3000:]
    return json.loads(out.splitlines()[-1]) if out else {"errors": errors}


def killed_in(root: Path, *words: str) -> None:
    """A start that is killed as soon as it says all of these, one after the other."""
    process, left = start(root), list(words)
    assert process.stderr is not None
    while left:
        line = process.stderr.readline()
        assert line, f"it ended before it said {left[0]!r}"
        if left[0] in line:
            left.pop(0)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def show(root: Path) -> dict[str, Any]:
    return capt.models_show(store=str(root / "store"))


def test_three_weeks(root: Path) -> None:
    scenes(root / "scenes", 100)
    killed_in(root, "retrain shapes: prepare", "building custom")
    killed_in(root, "retrain shapes: train", "epoch 1 of")
    together = [start(root), start(root)]
    for process in together:
        process.wait(timeout=540)
    assert sorted(process.returncode for process in together) == [0, 5]
    late = next(process for process in together if process.returncode == 5)
    assert "has been retraining shapes since" in finish(late, 5)["errors"]
    first = finish(next(process for process in together if process.returncode == 0))
    assert first["decision"] == "promoted"

    scenes(root / "scenes", 600)
    killed_in(root, "retrain shapes: prepare", "precision")
    killed_in(root, "retrain shapes: evaluate")
    killed_in(root, "retrain shapes: decide")
    second = finish(start(root))
    assert second["decision"] == "promoted" or second["decision"] == "nothing new"
    champion = second["champion"]
    assert champion != first["champion"]

    spoil(scenes(root / "scenes", 700), 100)
    assert finish(start(root), 3)["decision"] == "stopped"

    scenes(root / "scenes", 600)
    assert finish(start(root))["decision"] == "nothing new"

    scenes(root / "scenes", 610)
    third = finish(start(root))
    again = finish(start(root))
    assert again["decision"] == "nothing new"
    assert again["champion"] == third["champion"]

    shown = show(root)
    told = [one["decision"] for one in shown["history"]]
    assert told[:3] == ["promoted", "promoted", "stopped"]
    assert len(told) == 4
    assert all(one["why"] for one in shown["history"])
    for one in shown["history"][1:]:
        if one["decision"] in ("promoted", "rejected"):
            rounds = one["lineage"]["gate"]["rounds"].values()
            is_better = all(each["difference"]["low"] > 0 for each in rounds)
            assert is_better == (one["decision"] == "promoted")
    assert len({one["run"] for one in shown["history"]}) == 4, "nothing was trained twice"

    verified = capt.store_verify(store=str(root / "store"))
    assert verified["damaged"] == verified["missing"] == verified["foreign"] == []
    table = open_store(root / "store").feature_tables()[0]
    assert sum(shard.rows for shard in table.shards) == table.rows, "no image was extracted twice"
