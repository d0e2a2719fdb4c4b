"""The gate lets a challenger through that is surely better, and worse on nothing that is guarded."""

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


class SeenAs:
    """Data whose held-out images are given, and of which nothing is learned from."""

    def __init__(self, images: CommonImages) -> None:
        self.images = images

    def held_out(self) -> CommonImages:
        return self.images

    def learns_from(self, images: CommonImages) -> list[bool]:
        return [False] * len(images)


def passage(
    monkeypatch: pytest.MonkeyPatch, old: np.ndarray, new: np.ndarray, **options: object
) -> promotion_gate.GateResult:
    """What the gate says of two runs that read these images right."""
    right = {"old": old, "new": new}
    monkeypatch.setattr(promotion_gate, "sample_of", lambda run, store, images: sample_labels(right[run]))
    monkeypatch.setattr(CommonImages, "known_to", lambda self, store, runs: self)
    seen = SeenAs(IMAGES)
    return promotion_gate.evaluate_challenger("old", "new", None, seen, seen, "exact_match", GateConfig(**options))


def share(of: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(COUNT) < of


def test_a_challenger_that_is_surely_better_passes_and_the_reason_has_both_scores(monkeypatch) -> None:
    done = passage(monkeypatch, share(0.5), share(0.9))
    assert done.passed
    assert done.why[0].startswith("champion's test (400 images): exact_match 0.")
    assert list(done.rounds) == ["champion's test"], "the same images are asked once"


def test_one_that_may_be_better_by_chance_does_not(monkeypatch) -> None:
    old = share(0.5)
    new = old.copy()
    new[np.flatnonzero(~old)[:2]] = True
    done = passage(monkeypatch, old, new)
    assert not done.passed
    assert "wanted over +0.0000" in done.why[0]


def test_the_same_answers_do_not_pass_and_do_with_a_margin_below_zero(monkeypatch) -> None:
    assert not passage(monkeypatch, share(0.5), share(0.5)).passed
    assert passage(monkeypatch, share(0.5), share(0.5), margin=-0.01).passed


def test_being_worse_on_a_guarded_slice_keeps_it_out(monkeypatch) -> None:
    doubled = np.arange(COUNT) % 4 == 0
    old, new = np.where(doubled, True, share(0.3)), np.where(doubled, False, True)
    assert passage(monkeypatch, old, new).passed
    guarded = passage(monkeypatch, old, new, slices={"doubled": SliceConfig(pattern=r"(.)\1")})
    assert not guarded.passed
    assert "champion's test: doubled (100 images)" in guarded.why[0]
    assert guarded.why[0].endswith("a guarded slice")


def test_a_tolerance_counts_what_chance_could_explain(monkeypatch) -> None:
    doubled = np.arange(COUNT) % 4 == 0
    old = np.where(doubled, True, share(0.3))
    new = np.ones(COUNT, bool)
    new[np.flatnonzero(doubled)[:1]] = False
    assert passage(monkeypatch, old, new, slices={"doubled": SliceConfig(pattern=r"(.)\1")}).passed
    strict = {"doubled": SliceConfig(pattern=r"(.)\1", tolerance=0.0)}
    assert not passage(monkeypatch, old, new, slices=strict).passed


def test_differences_are_paired() -> None:
    old = share(0.5)
    new = old.copy()
    new[np.flatnonzero(~old)[:40]] = True
    found = paired_differences(sample_labels(old), sample_labels(new))["exact_match"]
    assert found.mean == pytest.approx(0.1)
    assert 0.06 < found.low < 0.1 < found.high < 0.14
