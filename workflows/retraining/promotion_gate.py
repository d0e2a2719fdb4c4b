"""The gate: whether a challenger is better than the champion, on what the champion was tested on and on what is new."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from features.store import Store
from schemas.errors import CaptError
from trainer.evaluation.bootstrap import Difference, MetricSamples, bootstrap_intervals, paired_differences
from trainer.evaluation.paired_evaluation import AnyRun, CommonImages, sample_run
from workflows.retraining.config import GateConfig
from workflows.retraining.data_snapshot import DataSnapshot

OWN, NEW = "champion's test", "new test"


@dataclass(frozen=True)
class PairedResult:
    """Champion and challenger on the same images.

    Args:
        images: int. How many.
        champion, challenger: dict. Their metrics.
        interval: (low, high) or None. Of the challenger's metric, where there is no champion.
        difference: Difference or None. Of the metric that the gate looks at, challenger less champion.
    """

    images: int
    champion: dict[str, float] | None
    challenger: dict[str, float]
    interval: tuple[float, float] | None = None
    difference: Difference | None = None


@dataclass(frozen=True)
class GateResult:
    """What the gate says.

    Args:
        passed: bool. Whether the challenger becomes the champion.
        why: tuple of str. The reasons.
        rounds: dict of Round. By `OWN`, `NEW` and the names of slices.
        left_out: int. Images of the champion's test split that the challenger has learned from, or whose features are
            gone.
    """

    passed: bool
    why: tuple[str, ...]
    rounds: dict[str, PairedResult] = field(default_factory=dict)
    left_out: int = 0

    def figures(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        return asdict(self)


def accept_first_model(
    challenger: AnyRun, store: Store, now: DataSnapshot, metric: str, gate: GateConfig
) -> GateResult:
    """A run where there is no champion yet: it is scored, and passes."""
    sample = sample_run(challenger, store, now.held_out())
    interval = bootstrap_intervals(sample, gate.draws, gate.level)[metric]
    made = PairedResult(len(sample), None, sample.metrics(), interval)
    return GateResult(True, (f"there was no champion; {metric} {made.challenger[metric]:.4f}",), {NEW: made})


def evaluate_challenger(
    champion: AnyRun,
    challenger: AnyRun,
    store: Store,
    before: DataSnapshot,
    now: DataSnapshot,
    metric: str,
    gate: GateConfig,
) -> GateResult:
    """Score two runs on the champion's own test split and on the new one, and say whether the second takes over.

    Args:
        champion: CaptionerRun or RecognizerRun. The champion.
        challenger: CaptionerRun or RecognizerRun. The challenger.
        store: Store. Where their features are.
        before: Seen. What the champion saw.
        now: Seen. What the challenger saw.
        metric: str. The one that decides.
        gate: Gate. What must be reached.

    Raises:
        CaptError: there is no image to score them on.
    """
    own, new = before.held_out(), now.held_out()
    fair = own.select(~np.array(now.learns_from(own), bool)).with_features(store, [champion, challenger])
    fresh = new.select(~np.array(before.learns_from(new), bool)).with_features(store, [champion, challenger])
    rounds: dict[str, PairedResult] = {}
    for name, images in {OWN: fair, NEW: fresh}.items():
        if not len(images) or (name == NEW and images == fair):
            continue
        old, other = sample_run(champion, store, images), sample_run(challenger, store, images)
        rounds[name] = _round(old, other, metric, gate)
        rounds |= _slices(name, images, old, other, metric, gate)
    if not rounds:
        raise CaptError("champion and challenger know no image in common to be scored on", location=str(store.path))
    why = [reason for name, one in rounds.items() if (reason := _objection(name, one, metric, gate))]
    if why:
        return GateResult(False, tuple(why), rounds, len(own) - len(fair))
    told = [_sentence(name, one, metric) for name, one in rounds.items() if name in (OWN, NEW)]
    return GateResult(True, tuple(told), rounds, len(own) - len(fair))


def _slices(
    name: str, images: CommonImages, old: MetricSamples, new: MetricSamples, metric: str, gate: GateConfig
) -> dict[str, PairedResult]:
    rounds = {}
    for called, each in gate.slices.items():
        pattern = re.compile(each.pattern, re.IGNORECASE)
        chosen = np.array([any(map(pattern.search, told)) for told in images.references], bool)
        if chosen.any():
            rounds[f"{name}: {called}"] = _round(old.select(chosen), new.select(chosen), metric, gate)
    return rounds


def _round(old: MetricSamples, new: MetricSamples, metric: str, gate: GateConfig) -> PairedResult:
    apart = paired_differences(old, new, gate.draws, gate.level)[metric]
    return PairedResult(len(old), old.metrics(), new.metrics(), difference=apart)


def _objection(name: str, one: PairedResult, metric: str, gate: GateConfig) -> str:
    """Why a round keeps the challenger out; empty where it does not."""
    assert one.difference is not None
    if name in (OWN, NEW):
        return (
            ""
            if one.difference.low > gate.margin
            else f"{_sentence(name, one, metric)}, wanted over {gate.margin:+.4f}"
        )
    tolerance = _tolerance(gate.slices, name)
    if one.difference.high < 0 or (tolerance is not None and one.difference.mean < -tolerance):
        return f"{_sentence(name, one, metric)}, a guarded slice"
    return ""


def _tolerance(slices: Mapping[str, Any], name: str) -> float | None:
    tolerance: float | None = slices[name.partition(": ")[2]].tolerance
    return tolerance


def _sentence(name: str, one: PairedResult, metric: str) -> str:
    assert one.difference is not None
    assert one.champion is not None
    low, high = one.difference.low, one.difference.high
    return (
        f"{name} ({one.images} images): {metric} {one.champion[metric]:.4f} → {one.challenger[metric]:.4f}, "
        f"{one.difference.mean:+.4f} ({low:+.4f} to {high:+.4f})"
    )
