"""Imports the scorers of pycocoevalcap except SPICE, whose constructor downloads files."""

from pycocoevalcap.bleu.bleu_scorer import BleuScorer
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from trainer.metrics import java

__all__ = ["BleuScorer", "Cider", "Rouge", "java"]
