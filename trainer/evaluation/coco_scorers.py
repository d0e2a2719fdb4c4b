"""The parts of pycocoevalcap that captions are scored with; SPICE is none: it downloads when it is constructed."""

from pycocoevalcap.bleu.bleu_scorer import BleuScorer
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

from trainer.evaluation import java

__all__ = ["BleuScorer", "Cider", "Rouge", "java"]
