"""Decides whether a challenger replaces the champion, by a paired comparison on held-out images."""

import re
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from features.store import Store
from schemas.errors import CaptError
from trainer.evaluation.bootstrap import Difference, MetricSamples, bootstrap_intervals, paired_differences
from trainer.evaluation.paired_evaluation import CommonImages, sample_run
from trainer.runs.run import Run
from workflows.retraining.config import GateConfig
from workflows.retraining.data_snapshot import DataSnapshot

CHAMPION_TEST, NEW_TEST = "champion_test", "new_test"


@dataclass(frozen=True)
class PairedResult:
    """Metrics of champion and challenger on the same images.

    Args:
        images: Number of images.
        champion: Metrics of the champion; None without a champion.
        challenger: Metrics of the challenger.
        interval: Confidence interval of the challenger's metric for the first model; None if the model has a champion.
        difference: Difference of the gate's metric, challenger minus champion; None without a champion.
    """

    images: int
    champion: dict[str, float] | None
    challenger: dict[str, float]
    interval: tuple[float, float] | None = None
    difference: Difference | None = None


@dataclass(frozen=True)
class GateResult:
    """The decision of the promotion gate.

    Args:
        passed: Whether the challenger becomes the champion.
        reasons: The reasons.
        comparisons: Results by split (`champion_test`, `new_test`) and slice (`champion_test/SLICE`).
        excluded_images: Number of images of the champion's test split that were not used: the challenger is trained on
            them, or their features are missing.
    """

    passed: bool
    reasons: tuple[str, ...]
    comparisons: dict[str, PairedResult] = field(default_factory=dict)
    excluded_images: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Returns the values for JSON."""
        return asdict(self)


def accept_first_model(
    challenger: Run, store: Store, snapshot: DataSnapshot, metric: str, gate: GateConfig
) -> GateResult:
    """Evaluates a run and accepts it, because the model has no champion yet."""
    samples = sample_run(challenger, store, snapshot.held_out())
    interval = bootstrap_intervals(samples, gate.n_resamples, gate.confidence_level)[metric]
    result = PairedResult(len(samples), None, samples.metrics(), interval)
    reason = f"there is no champion yet; {metric} {result.challenger[metric]:.4f}"
    return GateResult(True, (reason,), {NEW_TEST: result})


def evaluate_challenger(
    champion: Run,
    challenger: Run,
    store: Store,
    old: DataSnapshot,
    new: DataSnapshot,
    metric: str,
    gate: GateConfig,
) -> GateResult:
    """Compares two runs on the champion's test split and on the new one.

    Images that one of the runs is trained on are excluded.

    Args:
        champion: The champion.
        challenger: The challenger.
        store: The store with the features of both.
        old: The champion's training data.
        new: The challenger's training data.
        metric: Metric of the gate.
        gate: Requirements for the promotion.

    Raises:
        CaptError: All images are excluded.
    """
    runs = [champion, challenger]
    old_images, new_images = old.held_out(), new.held_out()
    splits = {
        CHAMPION_TEST: old_images.select(~np.array(new.trains_on(old_images), bool)).with_features(store, runs),
        NEW_TEST: new_images.select(~np.array(old.trains_on(new_images), bool)).with_features(store, runs),
    }
    if splits[NEW_TEST] == splits[CHAMPION_TEST]:
        del splits[NEW_TEST]
    results: dict[str, PairedResult] = {}
    objections: list[str] = []
    for split, images in splits.items():
        if not len(images):
            continue
        a, b = sample_run(champion, store, images), sample_run(challenger, store, images)
        results[split] = _compare(a, b, metric, gate)
        objections += _check_improvement(split, results[split], metric, gate)
        for name, config in gate.slices.items():
            selected = _match_images(images, config.pattern)
            if selected.any():
                result = _compare(a.select(selected), b.select(selected), metric, gate)
                results[f"{split}/{name}"] = result
                objections += _check_slice(f"{split}/{name}", result, metric, config.max_regression)
    if not results:
        raise CaptError("champion and challenger have no held-out image in common", location=str(store.path))
    reasons = objections or [_describe(split, results[split], metric) for split in splits if split in results]
    return GateResult(not objections, tuple(reasons), results, len(old_images) - len(splits[CHAMPION_TEST]))


def _match_images(images: CommonImages, pattern: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    search = re.compile(pattern, re.IGNORECASE).search
    return np.array([any(map(search, texts)) for texts in images.references], bool)


def _compare(a: MetricSamples, b: MetricSamples, metric: str, gate: GateConfig) -> PairedResult:
    difference = paired_differences(a, b, gate.n_resamples, gate.confidence_level)[metric]
    return PairedResult(len(a), a.metrics(), b.metrics(), difference=difference)


def _check_improvement(split: str, result: PairedResult, metric: str, gate: GateConfig) -> list[str]:
    assert result.difference is not None
    if result.difference.low > gate.min_improvement:
        return []
    return [f"{_describe(split, result, metric)}; the lower end must exceed {gate.min_improvement:+.4f}"]


def _check_slice(name: str, result: PairedResult, metric: str, max_regression: float | None) -> list[str]:
    assert result.difference is not None
    is_worse = max_regression is not None and result.difference.mean < -max_regression
    if result.difference.high < 0 or is_worse:
        return [f"{_describe(name, result, metric)}; the challenger is worse on this slice"]
    return []


def _describe(name: str, result: PairedResult, metric: str) -> str:
    assert result.difference is not None
    assert result.champion is not None
    difference = result.difference
    return (
        f"{name} ({result.images} images): {metric} {result.champion[metric]:.4f} → {result.challenger[metric]:.4f}, "
        f"{difference.mean:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})"
    )
