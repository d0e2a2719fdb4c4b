"""A model is a history of decisions, whose last one says which run answers."""

import os
import shutil
from pathlib import Path

import pytest

import capt
from features.store import Store
from schemas.errors import CorruptFileError, StoreError, UsageError
from schemas.manifests import Decision, ModelMetadata
from tests.features.store.stores import new_store
from workflows.model_registry import KEPT, RegisteredModel, current_time


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path / "store")


def run_name(number: int) -> str:
    return f"{number:016x}"


def put_run(model: RegisteredModel, number: int) -> str:
    """A run directory of two files, one of which is nested."""
    root = model.run_path(run_name(number))
    (root / "checkpoints" / "1").mkdir(parents=True)
    (root / "run.json").write_text(f"run {number}")
    (root / "checkpoints" / "1" / "model.weights.h5").write_bytes(bytes([number % 256]) * 100)
    (root / ".lock").write_text("")
    return run_name(number)


def facts(decision: Decision, number: int, champion: int | None) -> ModelMetadata:
    named = None if champion is None else run_name(champion)
    return ModelMetadata(
        task="captioner",
        decision=decision,
        run=run_name(number),
        champion=named,
        reasons=("said so",),
        decided_at=current_time(),
    )


def promote(model: RegisteredModel, number: int) -> None:
    put_run(model, number)
    model.promote(facts("promoted", number, number))


def test_the_last_decision_names_the_champion(store: Store) -> None:
    model = RegisteredModel(store, "shapes")
    assert model.champion is None
    promote(model, 1)
    model.decide(facts("rejected", 2, 1))
    promote(model, 3)
    assert model.champion == run_name(3)
    assert [one.facts.decision for one in model.history()] == ["promoted", "rejected", "promoted"]
    assert capt.models_ls(store=str(store.path))["models"][0]["champion"] == run_name(3)
    shown = capt.models_show(store=str(store.path))
    assert [one["reasons"] for one in shown["history"]] == [["said so"]] * 3


def test_a_promotion_references_every_file_of_the_run_except_its_lock(store: Store) -> None:
    model = RegisteredModel(store, "shapes")
    promote(model, 1)
    files = model.history()[0].manifest.files
    assert sorted(files) == ["checkpoints/1/model.weights.h5", "run.json"]
    assert files["run.json"].path == f"runs/{run_name(1)}/run.json"


def test_rolling_back_goes_one_champion_further_each_time(store: Store) -> None:
    model = RegisteredModel(store, "shapes")
    for number in (1, 2, 3):
        promote(model, number)
    assert capt.models_rollback(store=str(store.path))["champion"] == run_name(2)
    assert capt.models_rollback(store=str(store.path))["champion"] == run_name(1)
    with pytest.raises(StoreError, match="no previous champion"):
        capt.models_rollback(store=str(store.path))
    assert model.champion == run_name(1)


def test_a_person_can_promote_a_rejected_run(store: Store) -> None:
    model = RegisteredModel(store, "shapes")
    promote(model, 1)
    put_run(model, 0xA2)
    model.decide(facts("rejected", 0xA2, 1))
    done = capt.models_promote(store=str(store.path), run=run_name(0xA2))
    assert done == {"name": "shapes", "champion": run_name(0xA2), "before": run_name(1)}
    assert capt.models_rollback(store=str(store.path))["champion"] == run_name(1)
    with pytest.raises(StoreError, match="no finished runs begin with 'ff'"):
        capt.models_promote(store=str(store.path), run="ff")


def test_rolling_back_to_a_corrupt_champion_is_an_error(store: Store) -> None:
    model = RegisteredModel(store, "shapes")
    promote(model, 1)
    promote(model, 2)
    (model.run_path(run_name(1)) / "run.json").write_text("another")
    with pytest.raises(CorruptFileError, match="a file of the run 0000000000000001 is corrupt or missing"):
        capt.models_rollback(store=str(store.path))
    assert model.champion == run_name(2)


def test_a_flipped_byte_is_found_in_every_file_of_a_model(store: Store) -> None:
    model = RegisteredModel(store, "shapes")
    promote(model, 1)
    assert capt.store_verify(store=str(store.path))["damaged"] == []
    for path in sorted(path for path in model.root.rglob("*") if path.is_file() and path.name != ".lock"):
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(CorruptFileError):
            capt.store_verify(store=str(store.path))
        path.write_bytes(whole)
    (model.root / "runs" / "stray.txt").write_text("what an evaluation or a person left is no damage")
    (model.root / "stray.txt").write_text("this is nobody's")
    assert capt.store_verify(store=str(store.path))["orphaned"] == ["models/shapes/stray.txt"]


def test_garbage_collection_keeps_the_last_champions_and_recent_runs(store: Store) -> None:
    model = RegisteredModel(store, "shapes")
    for number in range(1, KEPT + 3):
        promote(model, number)
    put_run(model, 0x100)
    put_run(model, 0x101)
    killed = model.run_path(run_name(0x100))
    for path in (killed, *killed.rglob("*")):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    capt.store_gc(store=str(store.path), older_than="0s")
    expected = [run_name(number) for number in (*range(3, KEPT + 3), 0x101)]
    assert model.runs() == expected
    assert capt.store_verify(store=str(store.path))["missing"] == []
    assert len(model.history()) == KEPT + 2
    with pytest.raises(CorruptFileError, match="a file of the run 0000000000000001 is corrupt or missing"):
        capt.models_promote(store=str(store.path), run=run_name(1))


def test_the_model_name_is_required_if_there_are_several(store: Store) -> None:
    with pytest.raises(StoreError, match="has no model"):
        capt.models_show(store=str(store.path))
    promote(RegisteredModel(store, "shapes"), 1)
    promote(RegisteredModel(store, "words"), 1)
    with pytest.raises(StoreError, match=r"has several models.*--model-name: shapes, words"):
        capt.models_show(store=str(store.path))
    assert capt.models_show(store=str(store.path), model_name="words")["name"] == "words"
    with pytest.raises(UsageError, match="invalid model name"):
        RegisteredModel(store, "../away")


def test_a_missing_run_is_not_promoted(store: Store) -> None:
    model = RegisteredModel(store, "shapes")
    promote(model, 1)
    put_run(model, 2)
    shutil.rmtree(model.run_path(run_name(2)))
    with pytest.raises(StoreError, match="the run 0000000000000002 does not exist"):
        model.promote(facts("promoted", 2, 2))
    assert model.champion == run_name(1)
