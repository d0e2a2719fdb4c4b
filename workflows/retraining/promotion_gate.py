"""Decides whether a challenger replaces the champion, by a paired comparison on held-out images."""

import re
from dataclasses import dataclass, field

import numpy as np

from features.store import Store
from schemas.errors import CaptError
from trainer.evaluation.bootstrap import Difference, MetricSamples, bootstrap_intervals, paired_differences
from trainer.evaluation.paired_evaluation import sample_run
from trainer.runs.run import Run
from workflows.retraining.config import GateConfig
from workflows.retraining.data_snapshot import DataSnapshot

CHAMPION_TEST, NEW_TEST = "champion_test", "new_test"


@dataclass(frozen=True)
class PairedResult:
    """Metrics of champion and challenger on the same images.

    Args:
        images: Number of images.
        champion: Metrics of the champion by name; None without a champion.
        challenger: Metrics of the challenger by name.
        interval: Confidence interval of the gate's metric of the challenger; None if there is a champion.
        difference: Difference of the gate's metric, challenger minus champion; None without a champion.
    """

    images: int
    champion: dict[str, float] | None
    challenger: dict[str, float]
    interval: tuple[float, float] | None = None
    difference: Difference | None = None


@dataclass(frozen=True)
class GateResult:
    """The decision of the promotion gate with its reasons.

    Args:
        comparisons: Results by split (`champion_test`, `new_test`) and slice (`champion_test/SLICE`).
        excluded_images: Number of images of the champion's test split that were not used: the challenger is trained on
            them, or their features are missing.
    """

    passed: bool
    reasons: tuple[str, ...]
    comparisons: dict[str, PairedResult] = field(default_factory=dict)
    excluded_images: int = 0


def evaluate_challenger(
    champion: Run | None,
    challenger: Run,
    store: Store,
    old: DataSnapshot | None,
    new: DataSnapshot,
    metric: str,
    gate: GateConfig,
) -> GateResult:
    """Compares two runs on the test split of the champion's data (`old`) and on that of the challenger's (`new`).

    Images that one of the runs is trained on are excluded. Without a champion, the challenger is accepted.

    Raises:
        CaptError: All images are excluded.
    """
    if champion is None or old is None:
        samples = sample_run(challenger, store, new.held_out())
        interval = bootstrap_intervals(samples, gate.n_resamples, gate.confidence_level)[metric]
        result = PairedResult(len(samples), None, samples.metrics(), interval)
        reason = f"there is no champion yet; {metric} {result.challenger[metric]:.4f}"
        return GateResult(True, (reason,), {NEW_TEST: result})
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

    def compare(name: str, a: MetricSamples, b: MetricSamples) -> Difference:
        difference = paired_differences(a, b, gate.n_resamples, gate.confidence_level)[metric]
        results[name] = PairedResult(len(a), a.metrics(), b.metrics(), difference=difference)
        return difference

    for split, images in splits.items():
        if not len(images):
            continue
        a, b = sample_run(champion, store, images), sample_run(challenger, store, images)
        difference = compare(split, a, b)
        if not difference.low > gate.min_improvement:
            reason = f"the lower end must exceed {gate.min_improvement:+.4f}"
            objections.append(f"{_describe(split, results[split], metric)}; {reason}")
        for slice_name, config in gate.slices.items():
            search = re.compile(config.pattern, re.IGNORECASE).search
            selected = np.array([any(map(search, texts)) for texts in images.references], bool)
            if selected.any():
                name, limit = f"{split}/{slice_name}", config.max_regression
                difference = compare(name, a.select(selected), b.select(selected))
                if difference.high < 0 or (limit is not None and difference.mean < -limit):
                    objections.append(
                        f"{_describe(name, results[name], metric)}; the challenger is worse on this slice"
                    )
    if not results:
        message, hint = "champion and challenger have no held-out image in common", "Add images to the test split."
        raise CaptError(message, location=str(store.path), hint=hint)
    reasons = objections or [_describe(split, results[split], metric) for split in splits if split in results]
    return GateResult(not objections, tuple(reasons), results, len(old_images) - len(splits[CHAMPION_TEST]))


def _describe(name: str, result: PairedResult, metric: str) -> str:
    assert result.difference is not None
    assert result.champion is not None
    difference = result.difference
    return (
        f"{name} ({result.images} images): {metric} {result.champion[metric]:.4f} → {result.challenger[metric]:.4f}, "
        f"{difference.mean:+.4f} ({difference.low:+.4f} to {difference.high:+.4f})"
    )
