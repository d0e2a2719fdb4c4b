"""Intervals: how far scores would lie apart on other images of the same kind, by the bootstrap (Efron, 1979)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.metrics import MAX_ORDER, Scores, bleu

N_RESAMPLES = 1000
CONFIDENCE_LEVEL = 0.95


@dataclass(frozen=True)
class MetricSamples:
    """Scores of images, in a form of which scores of any of them combine can be told.

    Args:
        names: tuple of str. The M metrics.
        table: float64 array [N, K]. What adds up over images.
        combine: function from sums [..., K] and how many images they are of to metrics [..., M].
    """

    names: tuple[str, ...]
    table: NDArray[np.float64]
    combine: Callable[[NDArray[np.float64], int], NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.table)

    def select(self, images: NDArray[np.bool_]) -> "MetricSamples":
        """Those of some images."""
        return MetricSamples(self.names, self.table[images], self.combine)

    def metrics(self) -> dict[str, float]:
        """The metrics of all images."""
        values = self.combine(self.table.sum(axis=0), len(self))
        return dict(zip(self.names, values.tolist(), strict=True))

    def resample(self, samples: int, seed: int) -> NDArray[np.float64]:
        """The metrics [samples, M] of as many images drawn with replacement; equal seeds draw equal images."""
        generator = np.random.default_rng(seed)
        totals = np.array([_drawn(generator, self.table) for _ in range(samples)])
        return self.combine(totals, len(self))


@dataclass(frozen=True)
class Difference:
    """By how much one run's metric is larger than another's on the same images, and the interval of that."""

    mean: float
    low: float
    high: float


def sample_captions(scores: Scores) -> MetricSamples:
    """BLEU, ROUGE-L and CIDEr-D of captions.

    BLEU is counted anew over each draw (Koehn, 2004); ROUGE-L and CIDEr-D are means of the images' own scores, whose
    word weights stay those of all references. METEOR, which only its own process can put combine, is left out.

    Args:
        scores: Scores. From `trainer.metrics.Scorer`.
    """

    def combine(sums: NDArray[np.float64], images: int) -> NDArray[np.float64]:
        return np.concatenate([bleu(sums[..., :-2]), sums[..., -2:] / images], axis=-1)

    names = (*(f"bleu_{order}" for order in range(1, MAX_ORDER + 1)), "rouge_l", "cider_d")
    table = np.column_stack([scores.counts, scores.each["rouge_l"], scores.each["cider_d"]])
    return MetricSamples(names, table, combine)


def sample_labels(right: NDArray[np.bool_]) -> MetricSamples:
    """Words read right: `exact_match`, of whether each is."""
    return sample_means(("exact_match",), right[:, None].astype(np.float64))


def sample_means(names: tuple[str, ...], values: NDArray[np.float64]) -> MetricSamples:
    """Scores that are means of the images' own.

    Args:
        names: tuple of str. The M metrics, or runs with one metric.
        values: float64 array [N, M]. Those of each image.
    """
    return MetricSamples(names, values, lambda sums, images: sums / images)


def bootstrap_intervals(
    sample: MetricSamples, samples: int = N_RESAMPLES, level: float = CONFIDENCE_LEVEL, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of the metrics, over images drawn with replacement.

    Args:
        sample: Sample. The images' scores.
        samples: int. Draws.
        level: float. Share of the draws within the interval, between 0 and 1.
        seed: int. Decides what is drawn: equal seeds draw equal images, of runs that were scored on the same ones.

    Returns:
        dict: (low, high) by metric.
    """
    low, high = _tails(sample.resample(samples, seed), level)
    return {name: (float(a), float(b)) for name, a, b in zip(sample.names, low, high, strict=True)}


def paired_differences(
    old: MetricSamples, new: MetricSamples, samples: int = N_RESAMPLES, level: float = CONFIDENCE_LEVEL, seed: int = 0
) -> dict[str, Difference]:
    """By how much each metric is larger in `new`, with percentile intervals over images drawn for both alike.

    Args:
        old: Sample. The scores of one run.
        new: Sample. Those of another on the same images in the same order.
        samples: int. Draws.
        level: float. Share of the draws within the interval, between 0 and 1.
        seed: int. Decides what is drawn.
    """
    low, high = _tails(new.resample(samples, seed) - old.resample(samples, seed), level)
    before, after = old.metrics(), new.metrics()
    return {
        name: Difference(after[name] - before[name], float(a), float(b))
        for name, a, b in zip(old.names, low, high, strict=True)
    }


def _tails(drawn: NDArray[np.float64], level: float) -> NDArray[np.float64]:
    tail = (1 - level) / 2
    return np.quantile(drawn, [tail, 1 - tail], axis=0)


def _drawn(generator: np.random.Generator, table: NDArray[np.float64]) -> NDArray[np.float64]:
    times = np.bincount(generator.integers(len(table), size=len(table)), minlength=len(table))
    return np.asarray(times @ table)
