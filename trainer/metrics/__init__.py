"""Scores captions: BLEU, METEOR, ROUGE-L and CIDEr-D."""

from trainer.metrics.caption_metrics import (
    MAX_ORDER,
    MEANS_OVER_IMAGES,
    METRICS,
    RESAMPLED_METRICS,
    TITLES,
    Scorer,
    Scores,
    bleu,
    cider_d,
    score,
)

__all__ = [
    "MAX_ORDER",
    "MEANS_OVER_IMAGES",
    "METRICS",
    "RESAMPLED_METRICS",
    "TITLES",
    "Scorer",
    "Scores",
    "bleu",
    "cider_d",
    "score",
]
