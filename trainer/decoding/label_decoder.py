"""Predicts labels from a recognizer's logits.

    greedy    lexicon-free: the most probable class per time step (CTC), or the most probable label (attention)
    beam      lexicon-free: the most probable label of a prefix beam search; never less probable than the greedy one
    lexicon   lexicon-constrained: the most probable word of a word list

All strategies score a label by its log-probability over all alignments.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from schemas.choices import DecodingStrategy
from trainer.decoding.lexicon import Lexicon
from trainer.models.charset import BLANK, decode

if TYPE_CHECKING:
    from trainer.models.recognizer_heads import Head

BEAM_WIDTH = 10
# Extensions of a prefix by less probable characters are dropped.
_MIN_PROBABILITY = 1e-6

_Ids = tuple[int, ...]
# Probabilities of alignments that end in a blank and in the prefix's last character.
_Prefixes = dict[_Ids, tuple[float, float]]


@dataclass(frozen=True)
class Prediction:
    """A predicted label, which may be empty, with its log-probability as score."""

    text: str
    score: float


class LabelDecoder:
    """Predicts one label per image from logits float [B, T, 27].

    Args:
        head: Head that computed the logits.
        strategy: Decoding strategy.
        words: Distinct words of the lexicon; used by `lexicon` only.
        beam_width: Number of prefixes per time step; used by `beam` only.
    """

    def __init__(
        self, head: "Head", strategy: DecodingStrategy, words: Sequence[str] = (), beam_width: int = BEAM_WIDTH
    ) -> None:
        self.head = head
        self.strategy = strategy
        self.beam_width = beam_width
        self._lexicon = Lexicon(words) if strategy == "lexicon" else None

    def __call__(self, logits: NDArray[np.float32]) -> list[Prediction]:
        if not len(logits):
            return []
        if lexicon := self._lexicon:
            score = lexicon.score_time_steps if self.head == "ctc" else lexicon.score_positions
            return [Prediction(lexicon.words[row.argmax()], float(row.max())) for row in score(_log_softmax(logits))]
        from features.runtime.keras_settings import ops

        ids, scores = map(ops.convert_to_numpy, _compile_greedy(self.head)(ops.convert_to_tensor(logits)))
        predictions = [Prediction(text, float(score)) for text, score in zip(decode(ids), scores, strict=True)]
        if self.strategy == "greedy" or self.head == "attention":
            return predictions
        return [self._search(steps, greedy) for steps, greedy in zip(_log_softmax(logits), predictions, strict=True)]

    def _search(self, log_probabilities: NDArray[np.float32], greedy: Prediction) -> Prediction:
        found = _prefix_beam_search(log_probabilities, self.beam_width)
        # The search does not count the alignments of prefixes that it dropped.
        lexicon = Lexicon(list(dict.fromkeys([greedy.text, *found])))
        scores = lexicon.score_time_steps(log_probabilities[None])[0]
        return Prediction(lexicon.words[scores.argmax()], float(scores.max()))


@lru_cache
def _compile_greedy(head: "Head") -> Any:
    from features.runtime.keras_settings import compile_function
    from trainer.models.recognizer_heads import decode_greedily

    return compile_function(partial(decode_greedily, head))


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    normalized: NDArray[np.float32] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normalized


def _prefix_beam_search(log_probabilities: NDArray[np.float32], beam_width: int) -> list[str]:
    """Returns the most probable labels of log-probabilities [T, 27], best first.

    The algorithm of Hannun et al. (2014, arXiv:1408.2873) without its language model. A prefix has two probabilities:
    of its alignments that end in a blank, and of its alignments that end in its last character. A beam as wide as the
    number of prefixes finds the most probable label. keras.ops.ctc_decode takes 18% of the time, but on TensorFlow it
    found a less probable label in 1 of 64 random images.
    """
    prefixes: _Prefixes = {(): (1.0, 0.0)}
    for probabilities in np.exp(log_probabilities.astype(np.float64)):
        prefixes = _extend(prefixes, probabilities, beam_width)
    return [decode(np.array([ids]))[0] for ids in prefixes]


def _extend(prefixes: _Prefixes, probabilities: NDArray[np.float64], beam_width: int) -> _Prefixes:
    characters = [int(id_) for id_ in np.flatnonzero(probabilities >= _MIN_PROBABILITY) if id_ != BLANK]
    probability = probabilities.tolist()
    on_blank: dict[_Ids, float] = defaultdict(float)
    on_character: dict[_Ids, float] = defaultdict(float)
    for prefix, (blank, character) in prefixes.items():
        on_blank[prefix] += (blank + character) * probability[BLANK]
        if prefix:
            on_character[prefix] += character * probability[prefix[-1]]
        for next_ in characters:
            extended = blank if prefix and next_ == prefix[-1] else blank + character
            on_character[(*prefix, next_)] += extended * probability[next_]
    total = {prefix: on_blank[prefix] + on_character[prefix] for prefix in {**on_blank, **on_character}}
    best = sorted(total, key=total.__getitem__, reverse=True)[:beam_width]
    # Normalized, so that many time steps do not underflow.
    norm = sum(total[prefix] for prefix in best) or 1.0
    return {prefix: (on_blank[prefix] / norm, on_character[prefix] / norm) for prefix in best}
