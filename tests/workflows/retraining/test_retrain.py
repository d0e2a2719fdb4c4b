"""`capt retrain`: one start trains a champion, the next says nothing new, a bad batch is stopped, all of it is told."""

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
from tests.workflows.retraining.weeks import save_network, scenes, settings, spoil, written
from trainer.runs.run import load_run
from workflows.model_registry import RegisteredModel
from workflows.retraining.data_snapshot import DataSnapshot
from workflows.retraining.pipeline import StoppedError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a champion that has learned from 100 scenes."""
    directory = tmp_path_factory.mktemp("retraining")
    save_network(directory / "network.keras")
    scenes(directory / "scenes", 100)
    return directory


@pytest.fixture(scope="module")
def promoted(root: Path) -> dict[str, Any]:
    return capt.retrain(file=str(written(root)))


def rows(root: Path) -> int:
    """Images whose features the store has."""
    return open_store(root / "store").feature_tables()[0].rows


def history(root: Path) -> list[dict[str, Any]]:
    return capt.models_show(store=str(root / "store"))["history"]


def test_the_first_run_is_promoted_and_captions(root: Path, promoted: dict[str, Any]) -> None:
    assert promoted["decision"] == "promoted"
    assert promoted["why"][0].startswith("there was no champion; cider_d ")
    assert load_run(promoted["path"]).caption(next((root / "scenes/images").iterdir())).text
    by_model = load_run(root / "store/models/shapes")
    assert str(by_model.path) == promoted["path"]
    json.dumps(promoted)


def test_the_history_says_what_went_in(root: Path, promoted: dict[str, Any]) -> None:
    [decision] = history(root)
    lineage = decision["lineage"]
    assert decision["decision"] == "promoted"
    assert lineage["config"]["train"]["units"] == 32
    assert set(lineage["data"]) == {"scenes"}
    assert set(lineage["versions"]) == {"capt", "keras", "numpy", "tensorflow"}
    assert lineage["gate"]["rounds"]["new test"]["images"] == 20
    assert [one["ok"] for one in lineage["prepared"]] == [100, 500]


def test_a_second_start_says_nothing_new_and_a_plan_says_so_before(root: Path, promoted: dict[str, Any]) -> None:
    before = sorted(path for path in (root / "store").rglob("*") if path.is_file())
    planned = capt.retrain(file=str(written(root)), dry_run=True)
    assert sorted(path for path in (root / "store").rglob("*") if path.is_file()) == before
    again = capt.retrain(file=str(written(root)))
    assert planned["decision"] == again["decision"] == "nothing new"
    assert again["champion"] == promoted["champion"]
    assert len(history(root)) == 1


def test_other_settings_are_something_new_and_a_plan_says_so(root: Path, promoted: dict[str, Any]) -> None:
    changed = written(root, train={**settings(root)["train"], "units": 40})
    assert capt.retrain(file=str(changed), dry_run=True)["decision"].startswith("compare and train")


def test_a_plan_without_a_store_trains(tmp_path: Path, root: Path) -> None:
    config = tmp_path / "retrain.yaml"
    config.write_text(yaml.safe_dump({**settings(root), "store": str(tmp_path / "store")}))
    planned = capt.retrain(file=str(config), dry_run=True)
    assert planned["decision"] == "prepare and train"
    assert not (tmp_path / "store").exists()


def test_a_second_start_at_once_is_told_who_holds_the_lock(root: Path, promoted: dict[str, Any]) -> None:
    with (
        hold_lock(root / "store" / WORK / "retrain-shapes.lock", "retraining shapes"),
        pytest.raises(LockedError, match="has been retraining shapes since"),
    ):
        capt.retrain(file=str(written(root)))


def test_a_bad_batch_is_stopped_once_and_the_same_words_are_not_kept_twice(
    root: Path, promoted: dict[str, Any]
) -> None:
    kept = root / "kept.json"
    hook = {"command": ["sh", "-c", f"cat > {kept}"]}
    try:
        spoil(scenes(root / "scenes", 140), 40)
        for _ in range(2):
            with pytest.raises(StoppedError) as raised:
                capt.retrain(file=str(written(root, hooks=hook)))
            assert raised.value.status == 3
            assert raised.value.figures is not None
            assert raised.value.figures["decision"] == "stopped"
        told = json.loads(kept.read_text())
        assert any("of the newly told words are unknown" in why for why in told["why"])
        assert any("of the prepared records failed" in why for why in told["why"])
        assert [one["decision"] for one in history(root)] == ["promoted", "stopped"]
        assert told["champion"] == promoted["champion"]
    finally:
        scenes(root / "scenes", 100)
    assert capt.retrain(file=str(written(root)))["decision"] == "nothing new"
    assert capt.store_verify(store=str(root / "store"))["damaged"] == []


def test_too_few_new_records_are_nothing_new(root: Path, promoted: dict[str, Any]) -> None:
    # That a person chose the champion anew does not make its data new.
    capt.models_promote(store=str(root / "store"), run=promoted["run"])
    try:
        scenes(root / "scenes", 101)
        found = capt.retrain(file=str(written(root, rules={"least_new": 100})))
        assert found["decision"] == "nothing new"
        assert found["why"] == ["6 new records, 100 wanted"]
    finally:
        scenes(root / "scenes", 100)


def test_what_nobody_foresaw_is_entered_and_told_too(
    root: Path, promoted: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = root / "unforeseen.json"
    monkeypatch.setattr(DataSnapshot, "digest", property(lambda self: 1 // 0))
    with pytest.raises(ZeroDivisionError):
        capt.retrain(file=str(written(root, hooks={"command": ["sh", "-c", f"cat > {kept}"]})))
    told = json.loads(kept.read_text())
    assert (told["decision"], told["champion"]) == ("failed", promoted["champion"])
    assert history(root)[-1]["why"] == told["why"] == ["ZeroDivisionError: integer division or modulo by zero"]


def test_a_failure_is_entered_and_told(root: Path, promoted: dict[str, Any]) -> None:
    train = {**settings(root)["train"], "learning_rate": 1e30, "seed": 3}
    for _ in range(2):
        with pytest.raises(CaptError) as raised:
            capt.retrain(file=str(written(root, train=train)))
    assert raised.value.figures is not None
    assert raised.value.figures["decision"] == "failed"
    assert [one["decision"] for one in history(root) if one["run"] == raised.value.figures["run"]] == ["failed"]
    assert RegisteredModel(open_store(root / "store"), "shapes").champion == promoted["champion"]


@pytest.mark.slow
def test_a_warm_start_with_a_frozen_vocabulary_goes_on_from_the_champion(
    root: Path, promoted: dict[str, Any], tmp_path: Path
) -> None:
    before = rows(root)
    try:
        scenes(root / "scenes", 300)
        found = capt.retrain(file=str(written(root, start="warm", vocabulary="frozen", gate={"level": 0.9})))
        run = load_run(Path(promoted["path"]).parent / found["run"])
        assert found["decision"] == "promoted"
        assert run.metadata.warm == load_run(promoted["path"]).identity
        assert run.vocabulary == load_run(promoted["path"]).vocabulary
        assert found["prepared"][0]["ok"] == rows(root) - before
        capt.models_rollback(store=str(root / "store"))
        assert RegisteredModel(open_store(root / "store"), "shapes").champion == promoted["champion"]
    finally:
        scenes(root / "scenes", 100)


@pytest.mark.slow
def test_recognizers_of_words_are_retrained_alike(tmp_path: Path) -> None:
    capt.synth_captcha(out=tmp_path / "captchas", num_images=140, num_labelled=140, seed=3)
    config = {
        "store": str(tmp_path / "store"),
        "name": "words",
        "task": "captcha",
        "data": [{"images": [str(tmp_path / "captchas")], "labels": str(tmp_path / "captchas")}],
        "features": {"height": 24, "width": 64},
        "train": {
            **{key: list(v) if isinstance(v, tuple) else v for key, v in SMALL.items()},
            "max_length": 5,
            "epochs": 1,
        },
    }
    path = tmp_path / "retrain.yaml"
    path.write_text(yaml.safe_dump(config))
    found = capt.retrain(file=str(path))
    assert found["decision"] == "promoted"
    assert found["why"][0].startswith("there was no champion; exact_match 0.")
    assert capt.retrain(file=str(path))["decision"] == "nothing new"


@pytest.mark.slow
def test_a_model_of_a_store_in_a_bucket_is_retrained_and_brought_to_another_machine(root: Path, tmp_path: Path) -> None:
    scenes(root / "scenes", 100)
    with bucket("s3", tmp_path / "mirror"):
        store = f"s3://{BUCKET}/stores/models"
        config = tmp_path / "retrain.yaml"
        config.write_text(yaml.safe_dump({**settings(root), "store": store}))
        found = capt.retrain(file=str(config))
        assert found["decision"] == "promoted"
        shutil.rmtree(Path(found["path"]))
        again = capt.retrain(file=str(config))
        assert (again["decision"], again["champion"]) == ("nothing new", found["champion"])
        shown = capt.models_show(store=store)
        assert str(load_run(f"{store}/models/shapes").path) == shown["path"]
        assert load_run(shown["path"]).caption(next((root / "scenes/images").iterdir())).text
        verified = capt.store_verify(store=store)
        assert verified["damaged"] == verified["missing"] == verified["foreign"] == []
