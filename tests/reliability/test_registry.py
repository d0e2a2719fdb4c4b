"""No decision about a model undoes another decision that it has not seen."""

import threading
from pathlib import Path
from typing import Any

import pytest

import capt
from features.store import Store, create_store
from features.store.commit_log import CommitLog
from schemas.manifests import Manifest
from tests.features.store.stores import add_dataset, new_store
from tests.workflows.test_model_registry import facts, promote, put_run, run_name
from workflows.model_registry import ChampionChangedError, RegisteredModel
from workflows.retraining.config import RetrainConfig
from workflows.retraining.pipeline import _Retraining
from workflows.retraining.promotion_gate import GateResult


@pytest.fixture
def model(tmp_path: Path) -> RegisteredModel:
    """A model with champion 2, and champion 1 before it."""
    model = RegisteredModel(new_store(tmp_path / "store"), "shapes")
    promote(model, 1)
    promote(model, 2)
    return model


def _retraining(model: RegisteredModel, run: int) -> _Retraining:
    """A retraining that starts now, and whose challenger is the run of that number."""
    store = create_store(model.root.parent.parent)
    put_run(model, run)
    retraining = _Retraining(
        RetrainConfig(store=str(store.path), name=model.name, data=({"dataset_type": "folder"},)), store, model
    )
    retraining.log.run_name = run_name(run)
    return retraining


def test_retraining_does_not_overwrite_a_rollback(model: RegisteredModel) -> None:
    retraining = _retraining(model, 3)
    capt.models_rollback(store=str(retraining.store.path))
    outcome = retraining._decide(GateResult(True, ("better than champion 2",)))
    assert (outcome["decision"], outcome["champion"], model.champion) == ("stale", run_name(1), run_name(1))
    last = model.history()[-1].facts
    assert (last.decision, last.run, last.champion) == ("stale", run_name(3), run_name(1))
    assert capt.models_promote(store=str(retraining.store.path), run=run_name(3))["before"] == run_name(1)


def test_retraining_promotes_over_the_champion_that_it_compared_with(model: RegisteredModel) -> None:
    retraining = _retraining(model, 3)
    assert retraining._decide(GateResult(True, ("better",)))["decision"] == "promoted"
    assert model.champion == run_name(3)


@pytest.mark.parametrize("passed", [False, None])
def test_a_rejection_or_failure_leaves_a_rollback_in_effect(model: RegisteredModel, passed: bool | None) -> None:
    retraining = _retraining(model, 3)
    capt.models_rollback(store=str(retraining.store.path))
    outcome = (
        retraining.record_failure(RuntimeError("x"))
        if passed is None
        else retraining._decide(GateResult(passed, ("worse",)))
    )
    assert outcome["decision"] == ("failed" if passed is None else "rejected")
    assert outcome["champion"] == model.champion == run_name(1)


def test_of_two_rollbacks_at_once_one_is_refused(model: RegisteredModel, monkeypatch: pytest.MonkeyPatch) -> None:
    promote(model, 3)
    store = str(model.root.parent.parent)
    promote_over = RegisteredModel.promote_over

    def second(self: RegisteredModel, *arguments: Any) -> str | None:
        monkeypatch.setattr(RegisteredModel, "promote_over", promote_over)
        capt.models_rollback(store=store)
        return promote_over(self, *arguments)

    monkeypatch.setattr(RegisteredModel, "promote_over", second)
    with pytest.raises(ChampionChangedError):
        capt.models_rollback(store=store)
    assert model.champion == run_name(2)


def test_a_decision_that_another_overtakes_is_made_again(
    model: RegisteredModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = CommitLog._commit

    def overtaken(self: CommitLog, *arguments: Any) -> str | None:
        monkeypatch.setattr(CommitLog, "_commit", put)
        model.promote(facts("chosen", 1, 1))
        return put(self, *arguments)

    monkeypatch.setattr(CommitLog, "_commit", overtaken)
    model.decide(facts("rejected", 3, 2))
    assert [one.facts.decision for one in model.history()] == ["promoted", "promoted", "chosen", "rejected"]
    assert model.champion == run_name(1)
    monkeypatch.setattr(CommitLog, "_commit", overtaken)
    assert model.promote(facts("chosen", 2, 2)) == run_name(1)
    monkeypatch.setattr(CommitLog, "_commit", overtaken)
    with pytest.raises(ChampionChangedError):
        model.promote_over(run_name(2), facts("promoted", 2, 2))


# === Other commits that follow from what the log says ===


def _overtaken_by(monkeypatch: pytest.MonkeyPatch, other: Any) -> None:
    """Has another writer commit just before the next log entry is put."""
    put = CommitLog._commit

    def overtaken(self: CommitLog, *arguments: Any) -> str | None:
        monkeypatch.setattr(CommitLog, "_commit", put)
        other()
        return put(self, *arguments)

    monkeypatch.setattr(CommitLog, "_commit", overtaken)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return new_store(tmp_path / "store")


def test_of_two_commits_in_place_of_all_others_one_is_live(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (add_dataset(store, "photos", range(count)) for count in (2, 3))
    log = CommitLog(store.dataset_root("photos"))
    clean = [one.model_copy(update={"replaces": ()}) for one in (first, second)]
    log.supersede(Manifest(table="photos", files=first.files, facts=first.facts))
    _overtaken_by(monkeypatch, lambda: log.supersede(clean[1]))
    log.supersede(clean[0].model_copy(update={"facts": second.facts}))
    assert [(one.files, one.facts) for one in log.live()] == [(first.files, second.facts)]


def test_a_dropped_dataset_goes_with_what_was_committed_just_before(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:

    add_dataset(store, "photos", range(2))
    _overtaken_by(monkeypatch, lambda: add_dataset(store, "photos", range(3)))
    capt.store_drop(store=str(store.path), dataset="photos")
    assert store.datasets() == []


def test_decisions_of_many_threads_are_all_entered(model: RegisteredModel) -> None:
    threads = [threading.Thread(target=model.decide, args=(facts("rejected", 10 + n, 1),)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(model.history()) == 8
    assert model.champion == run_name(2)
