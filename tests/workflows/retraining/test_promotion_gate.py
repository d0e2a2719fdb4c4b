"""The gate accepts a challenger that is significantly better, and worse on no slice."""

from typing import Any

import numpy as np
import pytest

from trainer.evaluation.bootstrap import paired_differences, sample_labels
from trainer.evaluation.paired_evaluation import CommonImages
from workflows.retraining import promotion_gate
from workflows.retraining.config import GateConfig, SliceConfig

COUNT = 400
IMAGES = CommonImages(
    tuple(("words", str(number)) for number in range(COUNT)),
    tuple(number.to_bytes(32, "big") for number in range(COUNT)),
    tuple(("pool",) if number % 4 == 0 else ("cat",) for number in range(COUNT)),
)


class HeldOutSnapshot:
    """A snapshot with these held-out images and no training images."""

    def held_out(self) -> CommonImages:
        return IMAGES

    def trains_on(self, images: CommonImages) -> list[bool]:
        return [False] * len(images)


def gate(
    monkeypatch: pytest.MonkeyPatch, old: np.ndarray, new: np.ndarray, **options: Any
) -> promotion_gate.GateResult:
    """Returns the decision about two runs that recognize these images correctly."""
    correct = {"old": old, "new": new}
    monkeypatch.setattr(promotion_gate, "sample_run", lambda run, store, images: sample_labels(correct[run]))
    monkeypatch.setattr(CommonImages, "with_features", lambda self, store, runs: self)
    snapshot: Any = HeldOutSnapshot()
    runs: list[Any] = ["old", "new"]
    store: Any = None
    return promotion_gate.evaluate_challenger(*runs, store, snapshot, snapshot, "exact_match", GateConfig(**options))


def random_results(accuracy: float) -> np.ndarray:
    return np.random.default_rng(0).random(COUNT) < accuracy


def test_a_significantly_better_challenger_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    result = gate(monkeypatch, random_results(0.5), random_results(0.9))
    assert result.passed
    assert list(result.comparisons) == ["champion_test"], "equal splits are evaluated once"
    comparison = result.comparisons["champion_test"]
    assert comparison.images == COUNT
    assert comparison.champion is not None
    assert f"{comparison.champion['exact_match']:.4f}" in result.reasons[0]
    assert f"{comparison.challenger['exact_match']:.4f}" in result.reasons[0]


def test_an_insignificant_improvement_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    old = random_results(0.5)
    new = old.copy()
    new[np.flatnonzero(~old)[:2]] = True
    assert not gate(monkeypatch, old, new).passed


def test_equal_results_pass_only_with_a_negative_min_improvement(monkeypatch: pytest.MonkeyPatch) -> None:
    equal = random_results(0.5)
    assert not gate(monkeypatch, equal, equal).passed
    assert gate(monkeypatch, equal, equal, min_improvement=-0.01).passed


def test_a_regression_on_a_slice_does_not_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    doubled = np.arange(COUNT) % 4 == 0
    old, new = np.where(doubled, True, random_results(0.3)), np.where(doubled, False, True)
    assert gate(monkeypatch, old, new).passed
    result = gate(monkeypatch, old, new, slices={"doubled": SliceConfig(pattern=r"(.)\1")})
    assert not result.passed
    assert result.comparisons["champion_test/doubled"].images == COUNT / 4
    assert len(result.reasons) == 1
    assert result.reasons[0].startswith("champion_test/doubled ")


def test_max_regression_refuses_an_insignificant_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    doubled = np.arange(COUNT) % 4 == 0
    old = np.where(doubled, True, random_results(0.3))
    new = np.ones(COUNT, bool)
    new[np.flatnonzero(doubled)[:1]] = False
    assert gate(monkeypatch, old, new, slices={"doubled": SliceConfig(pattern=r"(.)\1")}).passed
    strict = {"doubled": SliceConfig(pattern=r"(.)\1", max_regression=0.0)}
    assert not gate(monkeypatch, old, new, slices=strict).passed


def test_differences_are_paired() -> None:
    old = random_results(0.5)
    new = old.copy()
    new[np.flatnonzero(~old)[:40]] = True
    difference = paired_differences(sample_labels(old), sample_labels(new))["exact_match"]
    assert difference.mean == pytest.approx(0.1)
    assert 0.06 < difference.low < 0.1 < difference.high < 0.14
