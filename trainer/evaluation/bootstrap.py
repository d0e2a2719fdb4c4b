"""Computes confidence intervals of metrics by the bootstrap (Efron, 1979)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from trainer.metrics.caption_metrics import MEANS_OVER_IMAGES, RESAMPLED_METRICS, Scores, bleu

N_RESAMPLES = 1000
CONFIDENCE_LEVEL = 0.95


@dataclass(frozen=True)
class Score:
    """A metric of a run, with its 95% confidence interval (low, high), if known."""

    value: float
    interval: tuple[float, float] | None = None

    @classmethod
    def build(cls, value: float, interval: Sequence[float] | None) -> Self:
        """Returns a score from JSON values."""
        return cls(value, None if interval is None else (float(interval[0]), float(interval[1])))


@dataclass(frozen=True)
class MetricSamples:
    """Per-image values [N, K] whose sums over any subset of the images determine M metrics.

    `combine` maps sums [..., K] and the number of images to metrics [..., M].
    """

    names: tuple[str, ...]
    table: NDArray[np.float64]
    combine: Callable[[NDArray[np.float64], int], NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.table)

    def select(self, mask: NDArray[np.bool_]) -> "MetricSamples":
        """Returns the samples of the images that the mask selects."""
        return MetricSamples(self.names, self.table[mask], self.combine)

    def metrics(self) -> dict[str, float]:
        """Returns the metrics of all images."""
        values = self.combine(self.table.sum(axis=0), len(self))
        return dict(zip(self.names, values.tolist(), strict=True))

    def resample(self, n_resamples: int, seed: int) -> NDArray[np.float64]:
        """Returns the metrics [n_resamples, M] of resamples of N images; equal seeds choose equal images."""
        generator, count = np.random.default_rng(seed), len(self)
        times = (np.bincount(generator.integers(count, size=count), minlength=count) for _ in range(n_resamples))
        return self.combine(np.array([each @ self.table for each in times]), count)


@dataclass(frozen=True)
class Difference:
    """The mean difference of a metric between two runs on the same images, and its confidence interval."""

    mean: float
    low: float
    high: float


def sample_captions(scores: Scores) -> MetricSamples:
    """Returns the samples of `RESAMPLED_METRICS`.

    BLEU is computed from the n-gram counts of each resample (Koehn, 2004). ROUGE-L and CIDEr-D are means over images;
    the n-gram weights of CIDEr-D are computed from all references. METEOR cannot be computed for a resample.
    """

    def combine(sums: NDArray[np.float64], images: int) -> NDArray[np.float64]:
        means = sums[..., -len(MEANS_OVER_IMAGES) :] / images
        return np.concatenate([bleu(sums[..., : -len(MEANS_OVER_IMAGES)]), means], axis=-1)

    table = np.column_stack([scores.counts, *(scores.per_image[name] for name in MEANS_OVER_IMAGES)])
    return MetricSamples(RESAMPLED_METRICS, table, combine)


def sample_labels(correct: NDArray[np.bool_]) -> MetricSamples:
    """Returns the samples of `exact_match`; `correct` [N] states whether each label is correct."""
    return sample_means(("exact_match",), correct[:, None].astype(np.float64))


def sample_means(names: tuple[str, ...], values: NDArray[np.float64]) -> MetricSamples:
    """Returns the samples of M metrics that are means over images, or of one metric of M runs; `values` [N, M]."""
    return MetricSamples(names, values, lambda sums, images: sums / images)


def bootstrap_intervals(
    samples: MetricSamples, n_resamples: int = N_RESAMPLES, confidence_level: float = CONFIDENCE_LEVEL, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Computes percentile intervals (low, high) by metric.

    With equal seeds, runs on the same images have the same resamples.
    """
    low, high = _quantiles(samples.resample(n_resamples, seed), confidence_level)
    return {name: (float(a), float(b)) for name, a, b in zip(samples.names, low, high, strict=True)}


def paired_differences(
    old: MetricSamples,
    new: MetricSamples,
    n_resamples: int = N_RESAMPLES,
    confidence_level: float = CONFIDENCE_LEVEL,
    seed: int = 0,
) -> dict[str, Difference]:
    """Computes the difference `new` − `old` by metric, with percentile intervals of the paired bootstrap.

    The samples are of the same images in the same order.
    """
    low, high = _quantiles(new.resample(n_resamples, seed) - old.resample(n_resamples, seed), confidence_level)
    before, after = old.metrics(), new.metrics()
    return {
        name: Difference(after[name] - before[name], float(a), float(b))
        for name, a, b in zip(old.names, low, high, strict=True)
    }


def _quantiles(values: NDArray[np.float64], confidence_level: float) -> NDArray[np.float64]:
    tail = (1 - confidence_level) / 2
    return np.quantile(values, [tail, 1 - tail], axis=0)
