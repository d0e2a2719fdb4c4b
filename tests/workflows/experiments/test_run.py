"""An experiment prepares what its trials share once, runs each of them once, and lets none stop the others."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest
import yaml

import capt
from schemas.errors import CaptError, ExitCode, UsageError
from tests.workflows.experiments.files import MERGE, NETWORK, captions_experiment, put
from trainer.training.checkpoints import Checkpoints

ATTENDS = {
    "model": "soft_attention",
    "embedding_dim": 8,
    "units": 8,
    "attention_dim": 8,
    "projection_dim": 8,
    "output_dim": 8,
}
# Takes no caption of more than two words, which training finds out.
BREAKS = {"model": "transformer", "num_layers": 1, "units": 8, "max_length": 2}
SKIP = [{"model": ["attends", "breaks"], "features": ["pooled", "same"]}, {"model": "merge", "features": "spatial"}]


@pytest.fixture
def entries(tmp_path: Path, photos: Callable[..., Path], coco: Callable[..., Path], no_java: None) -> dict[str, Any]:
    """Three kinds of models on two tables, one of which the file calls by two names; one model breaks."""
    return captions_experiment(
        tmp_path,
        photos(20),
        coco(range(20), captions=2),
        features={
            "spatial": NETWORK,
            "pooled": {**NETWORK, "pooling": "avg"},
            "same": {**NETWORK, "pooling": "avg", "precision": "auto"},
        },
        models={"attends": ATTENDS, "breaks": BREAKS, "merge": MERGE},
        skip=SKIP,
    )


@pytest.fixture
def no_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores without METEOR, whose program takes seconds to start."""
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))


def states(result: dict[str, Any]) -> dict[str, str]:
    return {each["trial"]: each["state"] for each in result["trials"]}


@pytest.mark.slow
def test_what_is_shared_is_prepared_once_and_what_is_done_stays_done(tmp_path: Path, entries: dict[str, Any]) -> None:
    file = put(tmp_path / "experiment.yaml", entries)
    plan = capt.experiment_run(file=str(file), dry_run=True)
    assert not (tmp_path / "store").exists()
    assert not (tmp_path / "out").exists()
    tables = {tuple(table["names"]): table for table in plan["tables"]}
    assert set(tables) == {("spatial",), ("pooled", "same"), ("words",)}
    assert [(table["hits"], table["misses"]) for table in tables.values()] == [(0, 20), (0, 20), (0, 40)]
    assert tables["pooled", "same"]["trials"] == ["merge-pooled-words-seed0", "merge-same-words-seed0"]
    assert tables["spatial",]["estimated_seconds"] > 0
    assert (plan["to_do"], plan["done"], len(plan["skipped"])) == (4, 0, 5)

    with pytest.raises(CaptError, match=r"1 of 4 trials failed: breaks-spatial-words-seed0: .*longest") as failure:
        capt.experiment_run(file=str(file))
    result = failure.value.summary
    assert failure.value.exit_code == ExitCode.FAILED
    assert result["failed"] == ["breaks-spatial-words-seed0"]
    assert sorted(states(result).values()) == ["done", "done", "done", "failed"]
    kept = json.loads((tmp_path / "out" / "results" / "breaks-spatial-words-seed0.json").read_text())
    assert kept["status"] == "failed"
    assert "the longest caption has" in kept["reason"]

    plan = capt.experiment_run(file=str(file), dry_run=True)
    assert (plan["done"], plan["to_do"]) == (3, 1)
    assert all(table["misses"] == 0 for table in plan["tables"])
    (broken,) = (each for each in plan["trials"] if each["failed_last"])
    assert broken["failed_last"] == kept["reason"]

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "results").iterdir()}
    entries["models"]["breaks"] = {**BREAKS, "longest": 12}
    result = capt.experiment_run(file=str(put(file, entries)))
    assert result["failed"] == []
    assert set(states(result).values()) == {"done"}
    changed = [path.stem for path, time_ns in before.items() if path.stat().st_mtime_ns != time_ns]
    assert changed == ["breaks-spatial-words-seed0"]
    assert result["trials"][0]["scores"]["bleu_1"] >= 0


def test_another_way_of_scoring_trains_nothing_again(tmp_path: Path, entries: dict[str, Any]) -> None:
    entries |= {"models": {"merge": MERGE}, "features": {"pooled": entries["features"]["pooled"]}, "skip": []}
    file = put(tmp_path / "experiment.yaml", entries)
    capt.experiment_run(file=str(file))
    result = tmp_path / "out" / "results" / "merge-pooled-words-seed0.json"
    first = json.loads(result.read_text())
    entries["evaluate"] = {"num_beams": 2, "num_examples": 0}
    put(file, entries)
    assert capt.experiment_run(file=str(file), dry_run=True)["to_resume"] == 1
    capt.experiment_run(file=str(file))
    second = json.loads(result.read_text())
    assert second["trained"]["resumed_at"] == first["trained"]["steps"] > 0
    assert second["evaluated"]["decoding"]["num_beams"] == 2
    assert second["seconds"]["training"] == first["seconds"]["training"] > 0
    assert second["bytes"] > 0

    entries["train"]["learning_rate"] = 0.5
    with pytest.raises(CaptError, match=r"holds another run: training\.learning_rate: .*call its model otherwise"):
        capt.experiment_run(file=str(put(file, entries)))


@pytest.mark.slow
def test_models_and_tables_that_do_not_fit_are_refused_by_name_before_anything_runs(
    tmp_path: Path, entries: dict[str, Any]
) -> None:
    file = put(tmp_path / "experiment.yaml", {**entries, "skip": SKIP[1:]})
    for plan in (True, False):
        with pytest.raises(UsageError) as refused:
            capt.experiment_run(file=str(file), dry_run=plan)
        line = str(refused.value)
        assert "4 trials cannot be: " in line
        assert "soft_attention wants spatial features" in line
        assert "attends-pooled-words-seed0, attends-same-words-seed0, breaks-pooled-words-seed0" in line
        rules = yaml.safe_load(line[line.index("skip: ") + 6 :].split("`")[0])
        assert {"model": "attends", "features": "pooled"} in rules
    assert not (tmp_path / "store").exists()
    entries["skip"] = [*SKIP[1:], *rules]
    assert capt.experiment_run(file=str(put(file, entries)), dry_run=True)["to_do"] == 4


@pytest.mark.slow
def test_a_table_that_cannot_be_made_costs_only_the_trials_that_need_it(
    tmp_path: Path, entries: dict[str, Any]
) -> None:
    network = keras.Sequential([keras.layers.Input((16, 16, 3)), keras.layers.Rescaling(1e6, name="far")])
    network.save(tmp_path / "far.keras")
    # Its values are more than float16 holds, so that no image has features.
    entries["features"] = {
        "far": {"extractor": f"custom:{tmp_path / 'far.keras'}", "layer": "far", "pooling": "avg"},
        "pooled": entries["features"]["pooled"],
    }
    entries |= {"models": {"merge": MERGE}, "skip": []}
    file = put(tmp_path / "experiment.yaml", entries)
    with pytest.raises(CaptError, match=r"1 of 2 trials failed: merge-far-words-seed0: features far .* records failed"):
        capt.experiment_run(file=str(file))
    assert states(capt.experiment_run(file=str(file), dry_run=True)) == {
        "merge-far-words-seed0": "to do",
        "merge-pooled-words-seed0": "done",
    }


@pytest.mark.slow
def test_words_of_captchas_are_an_experiment_too(tmp_path: Path) -> None:
    capt.synth_captcha(out=tmp_path / "data", num_images=60, seed=3)
    made = str(tmp_path / "data" / "words_captcha")
    entries = {
        "task": "captcha",
        "store": str(tmp_path / "store"),
        "out": str(tmp_path / "out"),
        "prepare": {"images": made, "labels": made},
        "captcha": {"small": {"height": 16, "width": 32}, "large": {"height": 24, "width": 48}},
        "models": {
            "narrow": {"profile": "quick", "filters": [4, 8], "blocks_per_stage": [0, 0], "units": 8, "batch_size": 8}
        },
        "train": {"epochs": 1},
    }
    file = put(tmp_path / "experiment.yaml", entries)
    result = capt.experiment_run(file=str(file))
    assert list(states(result)) == ["narrow-small-seed0", "narrow-large-seed0"]
    assert set(result["trials"][0]["scores"]) >= {"exact_match", "character_error_rate"}
    assert capt.experiment_run(file=str(file), dry_run=True)["done"] == 2
    report = capt.experiment_report(directory=str(tmp_path / "out"))
    page = Path(report["page"]).read_text()
    assert "words right, lexicon" in page
    assert "<code>captcha.height</code>: 16 → 24" in page


# === Real processes ===


def command(file: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "capt", "experiment", "run", str(file), "--json", *options]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PATH": "/nothing"}


def killed_after(process: subprocess.Popen[str], run: Path, step: int) -> int:
    """SIGKILL once the run has a checkpoint that far; the step at which it stood."""
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline:
        state = Checkpoints(run / "checkpoints").state()
        if state and state.progress.step >= step:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return Checkpoints(run / "checkpoints").state().progress.step
        time.sleep(0.005)
    raise AssertionError(f"not killed: {process.communicate()[1][-2000:]}")


@pytest.mark.slow
def test_a_killed_experiment_goes_on_within_its_trial_and_two_at_once_do_not_fight(
    tmp_path: Path, entries: dict[str, Any]
) -> None:
    entries |= {"features": {"pooled": entries["features"]["pooled"]}, "skip": [], "seeds": [0, 1]}
    entries["models"] = {"merge": {**MERGE, "batch_size": 1, "save_steps": 1, "epochs": 1}}
    file = put(tmp_path / "experiment.yaml", entries)
    runs = tmp_path / "out" / "runs"
    first = subprocess.Popen(
        command(file), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 240
    while not (runs / "merge-pooled-words-seed0" / "run.json").exists() and time.monotonic() < deadline:
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.05)
    first.send_signal(signal.SIGSTOP)  # so that it holds the experiment until the other has asked
    other = subprocess.run(command(file), env=environment(), capture_output=True, text=True, timeout=240, check=False)
    assert other.returncode == ExitCode.LOCKED
    assert len(other.stderr.strip().splitlines()) == 1
    first.send_signal(signal.SIGCONT)
    stood = killed_after(first, runs / "merge-pooled-words-seed0", 2)

    again = subprocess.run(command(file), env=environment(), capture_output=True, text=True, timeout=240, check=True)
    result = json.loads(again.stdout.splitlines()[-1])
    assert set(states(result).values()) == {"done"}
    kept = [json.loads(path.read_text()) for path in sorted((tmp_path / "out" / "results").iterdir())]
    assert [each["trained"]["resumed_at"] for each in kept] == [stood, 0]
    assert kept[0]["trained"]["steps"] == kept[1]["trained"]["steps"] > stood
