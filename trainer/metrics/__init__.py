"""Scores captions: BLEU, METEOR, ROUGE-L and CIDEr-D."""

from trainer.metrics.caption_metrics import score

__all__ = ["score"]
