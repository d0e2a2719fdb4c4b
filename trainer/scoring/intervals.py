"""Intervals: how far scores would lie apart on other images of the same kind, by the bootstrap (Efron, 1979)."""

import numpy as np
from numpy.typing import NDArray

from trainer.metrics import MAX_ORDER, Scores, bleu


def bootstrap(
    scores: Scores, samples: int = 1000, level: float = 0.95, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Percentile intervals of the metrics, over images drawn with replacement.

    BLEU is counted anew over each draw (Koehn, 2004); ROUGE-L and CIDEr-D are means of the images' own scores, whose
    word weights stay those of all references. METEOR, which only its own process can put together, has no interval.

    Args:
        scores: Scores. From `trainer.metrics.Scorer`.
        samples: int. Draws.
        level: float. Share of the draws within the interval, between 0 and 1.
        seed: int. Decides what is drawn: equal seeds draw equal images, of runs that were scored on the same ones.

    Returns:
        dict: (low, high) by metric.
    """
    generator = np.random.default_rng(seed)
    table = np.column_stack([scores.counts, scores.each["rouge_l"], scores.each["cider_d"]])
    totals = np.array([_drawn(generator, table) for _ in range(samples)])
    columns = np.column_stack([bleu(totals[:, :-2]), totals[:, -2:] / len(table)])
    tail = (1 - level) / 2
    low, high = np.quantile(columns, [tail, 1 - tail], axis=0)
    names = [*(f"bleu_{order}" for order in range(1, MAX_ORDER + 1)), "rouge_l", "cider_d"]
    return {name: (float(a), float(b)) for name, a, b in zip(names, low, high, strict=True)}


def drawn_means(values: NDArray[np.float64], samples: int = 1000, seed: int = 0) -> NDArray[np.float64]:
    """Means over images drawn with replacement, the same images for all columns, so that columns can be compared.

    Args:
        values: float64 array [N, T]. Scores of each image, a column a run.
        samples: int. Draws.
        seed: int. Decides what is drawn.

    Returns:
        float64 array [samples, T].
    """
    generator = np.random.default_rng(seed)
    return np.array([_drawn(generator, values) for _ in range(samples)]) / len(values)


def _drawn(generator: np.random.Generator, table: np.ndarray) -> np.ndarray:
    times = np.bincount(generator.integers(len(table), size=len(table)), minlength=len(table))
    return times @ table
