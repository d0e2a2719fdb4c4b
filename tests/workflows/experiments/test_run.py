"""An experiment prepares shared tables once, runs each trial once, and a failed trial does not stop the others."""

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
from tests.workflows.experiments.files import MERGE, NETWORK, captions_experiment, write_yaml
from trainer.runs.checkpoints import Checkpoints

ATTENDS = {
    "model": "soft_attention",
    "embedding_dim": 8,
    "units": 8,
    "attention_dim": 8,
    "projection_dim": 8,
    "output_dim": 8,
}
# Its maximum length is too short for the captions, which only the training detects.
BREAKS = {"model": "transformer", "num_layers": 1, "units": 8, "max_length": 2}
EXCLUDE = [{"model": ["attends", "breaks"], "features": ["pooled", "same"]}, {"model": "merge", "features": "spatial"}]


@pytest.fixture
def entries(tmp_path: Path, photos: Callable[..., Path], coco: Callable[..., Path], no_java: None) -> dict[str, Any]:
    """Returns an experiment of three models on two tables, one with two names; one model fails."""
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
        exclude=EXCLUDE,
    )


@pytest.fixture
def no_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Disables METEOR, which takes seconds to start."""
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))


def states(result: dict[str, Any]) -> dict[str, str]:
    return {each["trial"]: each["state"] for each in result["trials"]}


@pytest.mark.slow
def test_shared_tables_are_prepared_once_and_finished_trials_are_kept(tmp_path: Path, entries: dict[str, Any]) -> None:
    file = write_yaml(tmp_path / "experiment.yaml", entries)
    plan = capt.experiment_run(file=str(file), dry_run=True)
    assert not (tmp_path / "store").exists()
    assert not (tmp_path / "out").exists()
    tables = {tuple(table["names"]): table for table in plan["tables"]}
    assert set(tables) == {("spatial",), ("pooled", "same"), ("words",)}
    assert [(table["hits"], table["misses"]) for table in tables.values()] == [(0, 20), (0, 20), (0, 40)]
    assert tables["pooled", "same"]["trials"] == ["merge-pooled-words-seed0", "merge-same-words-seed0"]
    assert tables["spatial",]["estimated_seconds"] > 0
    assert (plan["pending"], plan["done"], len(plan["excluded"])) == (4, 0, 5)

    with pytest.raises(CaptError, match=r"1 of 4 trials failed: breaks-spatial-words-seed0: ") as failure:
        capt.experiment_run(file=str(file))
    result = failure.value.summary
    assert failure.value.exit_code == ExitCode.FAILED
    assert result["failed_trials"] == ["breaks-spatial-words-seed0"]
    assert sorted(states(result).values()) == ["done", "done", "done", "failed"]
    kept = json.loads((tmp_path / "out" / "results" / "breaks-spatial-words-seed0.json").read_text())
    assert kept["status"] == "failed"
    assert kept["reason"] in str(failure.value)

    plan = capt.experiment_run(file=str(file), dry_run=True)
    assert (plan["done"], plan["incomplete"], plan["pending"]) == (3, 0, 1)
    assert all(table["misses"] == 0 for table in plan["tables"])
    (broken,) = (each for each in plan["trials"] if each["last_failure"])
    assert broken["last_failure"] == kept["reason"]

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "results").iterdir()}
    entries["models"]["breaks"] = {**BREAKS, "max_length": 12}
    result = capt.experiment_run(file=str(write_yaml(file, entries)))
    assert result["failed_trials"] == []
    assert set(states(result).values()) == {"done"}
    changed = [path.stem for path, time_ns in before.items() if path.stat().st_mtime_ns != time_ns]
    assert changed == ["breaks-spatial-words-seed0"]
    assert result["trials"][0]["scores"]["bleu_1"] >= 0


def test_other_evaluation_options_do_not_train_again(tmp_path: Path, entries: dict[str, Any]) -> None:
    entries |= {"models": {"merge": MERGE}, "features": {"pooled": entries["features"]["pooled"]}, "exclude": []}
    file = write_yaml(tmp_path / "experiment.yaml", entries)
    capt.experiment_run(file=str(file))
    result = tmp_path / "out" / "results" / "merge-pooled-words-seed0.json"
    first = json.loads(result.read_text())
    entries["evaluate"] = {"num_beams": 2, "num_examples": 0}
    write_yaml(file, entries)
    assert capt.experiment_run(file=str(file), dry_run=True)["incomplete"] == 1
    capt.experiment_run(file=str(file))
    second = json.loads(result.read_text())
    assert second["trained"]["resumed_at"] == first["trained"]["steps"] > 0
    assert second["evaluated"]["decoding"]["num_beams"] == 2
    assert second["seconds"]["training"] == first["seconds"]["training"] > 0
    assert second["bytes"] > 0

    entries["train"]["learning_rate"] = 0.5
    with pytest.raises(CaptError, match=r"contains another run: training\.learning_rate: .*Rename the model"):
        capt.experiment_run(file=str(write_yaml(file, entries)))


@pytest.mark.slow
def test_two_datasets_and_their_mix_are_evaluated_on_the_same_images(
    tmp_path: Path, entries: dict[str, Any], photos: Callable[..., Path], coco: Callable[..., Path]
) -> None:
    entries |= {"models": {"merge": MERGE}, "features": {"pooled": entries["features"]["pooled"]}, "exclude": []}
    data = entries["data"]
    entries["datasets"] = {
        "first": {"images": data.pop("images"), "annotations": data.pop("annotations")},
        "second": {"images": str(photos(20)), "annotations": str(coco(range(10, 20), captions=3))},
        "both": ["first", "second"],
    }
    file = write_yaml(tmp_path / "experiment.yaml", entries)
    plan = capt.experiment_run(file=str(file), dry_run=True)
    reusing = next(table for table in plan["tables"] if table["vocabulary_of"])
    assert (reusing["labels"], reusing["fingerprint"]) == (["words+second+first"], None)
    assert reusing["trials"] == ["merge-both-pooled-words-seed0"]
    assert plan["pending"] == 3

    capt.experiment_run(file=str(file))
    assert capt.experiment_run(file=str(file), dry_run=True)["done"] == 3
    results = [json.loads(path.read_text())["evaluated"] for path in sorted((tmp_path / "out" / "results").iterdir())]
    assert [result["datasets"] for result in results] == [["first", "second"], ["first"], ["second"]]
    assert len({result["data_digest"] for result in results}) == 1
    assert results[1]["evaluated_datasets"] == ["first", "second"]
    report = capt.experiment_report(directory=str(tmp_path / "out"), num_images=2)
    assert report["done"] == 3
    assert "words+second+first" in Path(report["page"]).read_text()


@pytest.mark.slow
def test_impossible_trials_are_named_before_anything_runs(tmp_path: Path, entries: dict[str, Any]) -> None:
    file = write_yaml(tmp_path / "experiment.yaml", {**entries, "exclude": EXCLUDE[1:]})
    for plan in (True, False):
        with pytest.raises(UsageError) as refused:
            capt.experiment_run(file=str(file), dry_run=plan)
        line = str(refused.value)
        assert "4 trials are impossible: " in line
        assert "attends-pooled-words-seed0, attends-same-words-seed0, breaks-pooled-words-seed0" in line
        rules = yaml.safe_load(line[line.index("exclude: ") + 9 :].split("`")[0])
        assert {"model": "attends", "features": "pooled"} in rules
    assert not (tmp_path / "store").exists()
    entries["exclude"] = [*EXCLUDE[1:], *rules]
    assert capt.experiment_run(file=str(write_yaml(file, entries)), dry_run=True)["pending"] == 4


@pytest.mark.slow
def test_a_failed_preparation_affects_only_the_trials_of_its_table(tmp_path: Path, entries: dict[str, Any]) -> None:
    network = keras.Sequential([keras.layers.Input((16, 16, 3)), keras.layers.Rescaling(1e6, name="far")])
    network.save(tmp_path / "far.keras")
    # Its values exceed float16, so all images fail.
    entries["features"] = {
        "far": {"extractor": f"custom:{tmp_path / 'far.keras'}", "layer": "far", "pooling": "avg"},
        "pooled": entries["features"]["pooled"],
    }
    entries |= {"models": {"merge": MERGE}, "exclude": []}
    file = write_yaml(tmp_path / "experiment.yaml", entries)
    with pytest.raises(CaptError, match=r"1 of 2 trials failed: merge-far-words-seed0: features far .* records failed"):
        capt.experiment_run(file=str(file))
    assert states(capt.experiment_run(file=str(file), dry_run=True)) == {
        "merge-far-words-seed0": "pending",
        "merge-pooled-words-seed0": "done",
    }


@pytest.mark.slow
def test_an_experiment_of_recognizers(tmp_path: Path) -> None:
    capt.synth_captcha(out=tmp_path / "data", num_images=60, seed=3)
    made = str(tmp_path / "data" / "words_captcha")
    entries = {
        "task": "captcha",
        "store": str(tmp_path / "store"),
        "output_dir": str(tmp_path / "out"),
        "data": {"images": made, "labels": made},
        "captcha": {"small": {"height": 16, "width": 32}, "large": {"height": 24, "width": 48}},
        "models": {
            "narrow": {"profile": "quick", "filters": [4, 8], "blocks_per_stage": [0, 0], "units": 8, "batch_size": 8}
        },
        "train": {"epochs": 1},
    }
    file = write_yaml(tmp_path / "experiment.yaml", entries)
    result = capt.experiment_run(file=str(file))
    assert list(states(result)) == ["narrow-small-seed0", "narrow-large-seed0"]
    assert set(result["trials"][0]["scores"]) >= {"exact_match", "cer"}
    assert capt.experiment_run(file=str(file), dry_run=True)["done"] == 2
    report = capt.experiment_report(directory=str(tmp_path / "out"))
    page = Path(report["page"]).read_text()
    assert "<code>captcha.height</code>: 16 → 24" in page


# === Real processes ===


def command(file: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "capt", "experiment", "run", str(file), "--json", *options]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PATH": "/nothing"}


def killed_after(process: subprocess.Popen[str], run: Path, step: int) -> int:
    """Kills the process once the run has a checkpoint of this step; returns the step of the last checkpoint."""
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
def test_a_killed_experiment_resumes_within_its_trial_and_a_concurrent_one_is_refused(
    tmp_path: Path, entries: dict[str, Any]
) -> None:
    entries |= {"features": {"pooled": entries["features"]["pooled"]}, "exclude": [], "seeds": [0, 1]}
    entries["models"] = {"merge": {**MERGE, "batch_size": 1, "save_steps": 1, "epochs": 1}}
    file = write_yaml(tmp_path / "experiment.yaml", entries)
    runs = tmp_path / "out" / "runs"
    first = subprocess.Popen(
        command(file), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 240
    while not (runs / "merge-pooled-words-seed0" / "run.json").exists() and time.monotonic() < deadline:
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.05)
    first.send_signal(signal.SIGSTOP)  # keeps its lock until the other process has ended
    other = subprocess.run(command(file), env=environment(), capture_output=True, text=True, timeout=240, check=False)
    assert other.returncode == ExitCode.LOCKED
    assert len(other.stderr.strip().splitlines()) == 1
    first.send_signal(signal.SIGCONT)
    last_step = killed_after(first, runs / "merge-pooled-words-seed0", 2)

    again = subprocess.run(command(file), env=environment(), capture_output=True, text=True, timeout=240, check=True)
    result = json.loads(again.stdout.splitlines()[-1])
    assert set(states(result).values()) == {"done"}
    kept = [json.loads(path.read_text()) for path in sorted((tmp_path / "out" / "results").iterdir())]
    assert [each["trained"]["resumed_at"] for each in kept] == [last_step, 0]
    assert kept[0]["trained"]["steps"] == kept[1]["trained"]["steps"] > last_step
