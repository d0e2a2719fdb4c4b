"""`capt retrain` trains a champion, then reports no change; data checks stop bad data, and decisions are recorded."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import capt
from features.io.locks import LockedError, hold_lock
from features.store import open_store
from features.store.layout import WORK
from schemas.errors import CaptError
from tests.features.buckets import BUCKET, bucket
from tests.trainer.words import SMALL
from tests.workflows.retraining.weeks import save_network, scenes, settings, spoil, write_config
from trainer.runs.run import load_run
from workflows.model_registry import RegisteredModel
from workflows.retraining.data_snapshot import DataSnapshot
from workflows.retraining.pipeline import DataCheckError, print_retrained


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with 100 scenes and an extractor."""
    directory = tmp_path_factory.mktemp("retraining")
    save_network(directory / "network.keras")
    scenes(directory / "scenes", 100)
    return directory


@pytest.fixture(scope="module")
def promoted(root: Path) -> dict[str, Any]:
    return capt.retrain(file=str(write_config(root)))


def rows(root: Path) -> int:
    """Returns the number of images that have features."""
    return open_store(root / "store").feature_tables()[0].rows


def history(root: Path) -> list[dict[str, Any]]:
    return capt.models_show(store=str(root / "store"))["history"]


def test_the_first_run_is_promoted_and_captions(root: Path, promoted: dict[str, Any]) -> None:
    assert promoted["decision"] == "promoted"
    assert promoted["reasons"][0].startswith("there is no champion yet; cider_d ")
    assert load_run(promoted["champion_dir"]).caption(next((root / "scenes/images").iterdir())).text
    by_model = load_run(root / "store/models/shapes")
    assert str(by_model.path) == promoted["champion_dir"]
    json.dumps(promoted)


def test_the_history_has_the_lineage_of_a_decision(root: Path, promoted: dict[str, Any]) -> None:
    [decision] = history(root)
    lineage = decision["lineage"]
    assert decision["decision"] == "promoted"
    assert lineage["config"]["train"]["units"] == 32
    assert set(lineage["datasets"]) == {"scenes"}
    assert set(lineage["versions"]) == {"capt", "keras", "numpy", "tensorflow"}
    assert lineage["gate"]["comparisons"]["new_test"]["images"] == 20
    assert [one["ok"] for one in lineage["prepared"]] == [100, 500]


def test_a_second_run_reports_no_change_as_its_dry_run_does(root: Path, promoted: dict[str, Any]) -> None:
    before = sorted(path for path in (root / "store").rglob("*") if path.is_file())
    planned = capt.retrain(file=str(write_config(root)), dry_run=True)
    assert sorted(path for path in (root / "store").rglob("*") if path.is_file()) == before
    again = capt.retrain(file=str(write_config(root)))
    assert planned["decision"] == again["decision"] == "no_change"
    assert again["champion"] == promoted["champion"]
    assert len(history(root)) == 1


def test_settings_without_effect_on_weights_and_scores_train_no_other_run(root: Path, promoted: dict[str, Any]) -> None:
    further = {"keep_epochs": 2, "sample_temperatures": [0, 1], "plot_from_zero": True}
    changed = write_config(root, train={**settings(root)["train"], **further})
    assert capt.retrain(file=str(changed), dry_run=True)["decision"] == "no_change"


def test_other_settings_are_trained(root: Path, promoted: dict[str, Any]) -> None:
    changed = write_config(root, train={**settings(root)["train"], "units": 40})
    assert capt.retrain(file=str(changed), dry_run=True)["decision"] == "train"


def test_a_dry_run_without_a_store_prepares_and_trains(tmp_path: Path, root: Path) -> None:
    config = tmp_path / "retrain.yaml"
    config.write_text(yaml.safe_dump({**settings(root), "store": str(tmp_path / "store")}))
    planned = capt.retrain(file=str(config), dry_run=True)
    assert planned["decision"] == "prepare_and_train"
    assert not (tmp_path / "store").exists()


def test_a_concurrent_run_is_refused(root: Path, promoted: dict[str, Any]) -> None:
    with (
        hold_lock(root / "store" / WORK / "retrain-shapes.lock", "retraining shapes"),
        pytest.raises(LockedError),
    ):
        capt.retrain(file=str(write_config(root)))


def test_failed_data_checks_are_recorded_once(
    root: Path, promoted: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    kept = root / "kept.json"
    notifications = {"command": ["sh", "-c", f"cat > {kept}"]}
    try:
        spoil(scenes(root / "scenes", 140), 40)
        for _ in range(2):
            with pytest.raises(DataCheckError) as raised:
                capt.retrain(file=str(write_config(root, notifications=notifications)))
            assert raised.value.exit_code == 3
            assert raised.value.summary is not None
            assert raised.value.summary["decision"] == "stopped"
        print_retrained(dict(raised.value.summary))
        printed = capsys.readouterr().out
        assert f"stopped; champion: {promoted['champion']}" in printed
        # The line of the error has the reasons.
        assert not [reason for reason in raised.value.summary["reasons"] if reason in printed]
        outcome = json.loads(kept.read_text())
        assert {reason.partition(":")[0] for reason in outcome["reasons"]} >= {"oov_rate", "failed_records"}
        assert [one["decision"] for one in history(root)] == ["promoted", "stopped"]
        assert outcome["champion"] == promoted["champion"]
    finally:
        scenes(root / "scenes", 100)
    assert capt.retrain(file=str(write_config(root)))["decision"] == "no_change"
    assert capt.store_verify(store=str(root / "store"))["damaged"] == []


def test_too_few_new_records_are_no_change(root: Path, promoted: dict[str, Any]) -> None:
    # A manual promotion of the same run does not change the champion's training data.
    capt.models_promote(store=str(root / "store"), run=promoted["run"])
    try:
        scenes(root / "scenes", 101)
        outcome = capt.retrain(file=str(write_config(root, data_checks={"min_new_records": 100})))
        assert outcome["decision"] == "no_change"
        assert outcome["reasons"] == ["6 new records; 100 are required"]
    finally:
        scenes(root / "scenes", 100)


def test_an_unexpected_error_is_recorded_and_reported(
    root: Path, promoted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = root / "unforeseen.json"
    monkeypatch.setattr(DataSnapshot, "digest", property(lambda self: 1 // 0))
    with pytest.raises(ZeroDivisionError):
        capt.retrain(file=str(write_config(root, notifications={"command": ["sh", "-c", f"cat > {kept}"]})))
    outcome = json.loads(kept.read_text())
    assert (outcome["decision"], outcome["champion"]) == ("failed", promoted["champion"])
    assert (
        history(root)[-1]["reasons"] == outcome["reasons"] == ["ZeroDivisionError: integer division or modulo by zero"]
    )


def test_a_failure_is_recorded_once(root: Path, promoted: dict[str, Any]) -> None:
    train = {**settings(root)["train"], "learning_rate": 1e30, "seed": 3}
    for _ in range(2):
        with pytest.raises(CaptError) as raised:
            capt.retrain(file=str(write_config(root, train=train)))
    assert raised.value.summary is not None
    assert raised.value.summary["decision"] == "failed"
    assert [one["decision"] for one in history(root) if one["run"] == raised.value.summary["run"]] == ["failed"]
    assert RegisteredModel(open_store(root / "store"), "shapes").champion == promoted["champion"]


@pytest.mark.slow
def test_a_warm_start_keeps_weights_and_vocabulary_of_the_champion(
    root: Path, promoted: dict[str, Any], tmp_path: Path
) -> None:
    before = rows(root)
    try:
        scenes(root / "scenes", 300)
        outcome = capt.retrain(
            file=str(write_config(root, initialization="champion", vocabulary="reuse", gate={"confidence_level": 0.9}))
        )
        run = load_run(Path(promoted["champion_dir"]).parent / outcome["run"])
        assert outcome["decision"] == "promoted"
        assert run.metadata.warm_start == load_run(promoted["champion_dir"]).identity
        assert run.vocabulary == load_run(promoted["champion_dir"]).vocabulary
        assert outcome["prepared"][0]["ok"] == rows(root) - before
        capt.models_rollback(store=str(root / "store"))
        assert RegisteredModel(open_store(root / "store"), "shapes").champion == promoted["champion"]
    finally:
        scenes(root / "scenes", 100)


@pytest.mark.slow
def test_a_recognizer_is_retrained(tmp_path: Path) -> None:
    capt.synth_captcha(out=tmp_path / "captchas", num_images=140, num_labelled=140, seed=3)
    config = {
        "store": str(tmp_path / "store"),
        "name": "words",
        "task": "captcha",
        "data": [{"images": [str(tmp_path / "captchas")], "labels": str(tmp_path / "captchas")}],
        "features": {"height": 24, "width": 64},
        "train": {
            **{key: list(v) if isinstance(v, tuple) else v for key, v in SMALL.items()},
            "max_label_length": 5,
            "epochs": 1,
        },
    }
    path = tmp_path / "retrain.yaml"
    path.write_text(yaml.safe_dump(config))
    outcome = capt.retrain(file=str(path))
    assert outcome["decision"] == "promoted"
    assert outcome["reasons"][0].startswith("there is no champion yet; exact_match 0.")
    assert capt.retrain(file=str(path))["decision"] == "no_change"


@pytest.mark.slow
def test_a_model_in_a_bucket_is_retrained_and_downloaded_again(root: Path, tmp_path: Path) -> None:
    scenes(root / "scenes", 100)
    with bucket("s3", tmp_path / "cache"):
        store = f"s3://{BUCKET}/stores/models"
        config = tmp_path / "retrain.yaml"
        config.write_text(yaml.safe_dump({**settings(root), "store": store}))
        outcome = capt.retrain(file=str(config))
        assert outcome["decision"] == "promoted"
        shutil.rmtree(Path(outcome["champion_dir"]))
        again = capt.retrain(file=str(config))
        assert (again["decision"], again["champion"]) == ("no_change", outcome["champion"])
        shown = capt.models_show(store=store)
        assert str(load_run(f"{store}/models/shapes").path) == shown["champion_dir"]
        assert load_run(shown["champion_dir"]).caption(next((root / "scenes/images").iterdir())).text
        verified = capt.store_verify(store=store)
        assert verified["damaged"] == verified["missing"] == verified["orphaned"] == []
