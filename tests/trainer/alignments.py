"""Computes CTC by its definition: by enumerating the alignments of a few time steps and characters."""

import itertools
from collections import defaultdict
from string import ascii_lowercase

import numpy as np

from features.text.charset import BLANK, Charset

LETTERS = Charset(tuple(ascii_lowercase))
NUM_CLASSES = LETTERS.num_classes
LIVE = "abc"
# The logit of the letters that are out of the question; small enough that all of them together are nothing.
OUT = -40.0


def frames_of(scores):
    """Logits float32 [T, 27] that let only the blank and `LIVE` be, from any array [T, 1 + len(LIVE)]."""
    logits = np.full((len(scores), NUM_CLASSES), OUT, np.float32)
    logits[:, : 1 + len(LIVE)] = scores
    return logits


def word_probabilities(logits):
    """The probability of every word that frames can say, by adding up that of each of its alignments."""
    shares = np.exp(logits - logits.max(-1, keepdims=True)).astype(np.float64)
    shares /= shares.sum(-1, keepdims=True)
    words = defaultdict(float)
    for path in itertools.product(range(1 + len(LIVE)), repeat=len(logits)):
        said = [id_ for id_, _ in itertools.groupby(path) if id_ != BLANK]
        words["".join(LETTERS.characters[id_ - 1] for id_ in said)] += np.prod(shares[np.arange(len(path)), path])
    return dict(words)
