"""Readings: the word that a recognizer's logits say, by the likeliest letters, by search, or from a list of words.

    greedy    the likeliest class of every frame (CTC), or the likeliest word (attention, whose positions are apart)
    beam      the word likeliest over all its alignments, searched for; never less likely than the greedy one
    lexicon   the likeliest word of a list

A reading's score is the same in all three: the log-probability of its word, over all alignments.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from schemas.options.shared import DecodingStrategy
from trainer.decoding.lexicon import Lexicon
from trainer.decoding.prefix_beam_search import prefix_beam_search
from trainer.models.charset import decode

if TYPE_CHECKING:
    from trainer.decoding.ctc_greedy import Head


BEAM = 10


@dataclass(frozen=True)
class Prediction:
    """A word read in an image.

    Args:
        text: str. Of the letters a to z; it can be empty.
        score: float. The natural logarithm of the probability that the model gives to it.
    """

    text: str
    score: float


class CtcDecoder:
    """Reads words from logits.

    Args:
        head: str. Which head they are of: `ctc` or `attention`.
        how: str. `greedy`, `beam` or `lexicon`.
        words: sequence of str. Those of the lexicon, each once; of no account otherwise.
        beam: int. Prefixes that `beam` carries on from frame to frame.

    Call arguments:
        logits: float array [B, T, 27], as the head gives them.

    Returns:
        list of Reading. One an image.
    """

    def __init__(self, head: "Head", how: DecodingStrategy, words: Sequence[str] = (), beam: int = BEAM) -> None:
        self.head = head
        self.how = how
        self.beam = beam
        self._lexicon = Lexicon(words) if how == "lexicon" else None

    def __call__(self, logits: NDArray[np.float32]) -> list[Prediction]:
        if not len(logits):
            return []
        if self._lexicon:
            return self._from_list(self._lexicon, logits)
        from trainer.decoding.ctc_greedy import greedy_arrays

        ids, scores = greedy_arrays(self.head, logits)
        readings = [Prediction(text, float(score)) for text, score in zip(decode(ids), scores, strict=True)]
        if self.how == "greedy" or self.head == "attention":
            return readings
        return [self._searched(frames, reading) for frames, reading in zip(_log_softmax(logits), readings, strict=True)]

    def _from_list(self, lexicon: Lexicon, logits: NDArray[np.float32]) -> list[Prediction]:
        chances = _log_softmax(logits)
        scores = lexicon.in_frames(chances) if self.head == "ctc" else lexicon.at_positions(chances)
        return [
            Prediction(lexicon.words[best], float(row[best]))
            for row, best in zip(scores, scores.argmax(1), strict=True)
        ]

    def _searched(self, frames: NDArray[np.float32], greedy: Prediction) -> Prediction:
        found = prefix_beam_search(frames, self.beam)
        # The search's own probabilities lack what came from prefixes that it dropped.
        lexicon = Lexicon(list(dict.fromkeys([greedy.text, *found])))
        scores = lexicon.in_frames(frames[None])[0]
        return Prediction(lexicon.words[scores.argmax()], float(scores.max()))


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
