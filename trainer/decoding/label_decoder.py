"""Predicts labels from a recognizer's logits.

    greedy    lexicon-free: the most probable class per time step (CTC), or the most probable label (attention)
    beam      lexicon-free: the most probable label of a prefix beam search; never less probable than the greedy one
    lexicon   lexicon-constrained: the most probable word of a word list

All strategies score a label by its log-probability over all alignments, and each of its characters by itself
(`trainer.decoding.character_confidence`).
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from features.text.charset import BLANK, Charset
from features.text.visual_order import decode_visually, encode_visually, visual_positions
from schemas.choices import DecodingStrategy
from trainer.decoding.character_confidence import alignment_confidences, position_confidences
from trainer.decoding.label_scores import score_labels
from trainer.decoding.lexicon import Lexicon

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
    """A predicted label, which may be empty, with its log-probability as score.

    `character_confidence` has the probability of each character of `text`, from 0 to 1.
    """

    text: str
    score: float
    character_confidence: tuple[float, ...] = field(default=(), compare=False)

    @property
    def confidence(self) -> float:
        """The probability of the label, from 0 to 1."""
        return min(1.0, math.exp(self.score))

    def to_dict(self) -> dict[str, Any]:
        """Returns the values for JSON."""
        return {
            "text": self.text,
            "score": self.score,
            "confidence": self.confidence,
            "character_confidence": list(self.character_confidence),
        }


class LabelDecoder:
    """Predicts one label per image from logits float [B, T, classes], divided by the temperature of the run.

    Args:
        charset: Characters of the classes.
        head: Head that computed the logits.
        strategy: Decoding strategy.
        words: Distinct words of the lexicon; used by `lexicon` only.
        beam_width: Number of prefixes per time step; used by `beam` only.
    """

    def __init__(
        self,
        charset: Charset,
        head: "Head",
        strategy: DecodingStrategy,
        words: Sequence[str] = (),
        beam_width: int = BEAM_WIDTH,
    ) -> None:
        self.charset = charset
        self.head = head
        self.strategy = strategy
        self.beam_width = beam_width
        self._lexicon = Lexicon(encode_visually(charset, words)) if strategy == "lexicon" else None

    def __call__(self, logits: NDArray[np.float32]) -> list[Prediction]:
        if not len(logits):
            return []
        log_probabilities, ids = log_softmax(logits), self.decode_ids(logits)
        compute = alignment_confidences if self.head == "ctc" else position_confidences
        confidences, scores = compute(log_probabilities, ids), score_labels(self.head, log_probabilities, ids)
        return [
            Prediction(text, float(score), tuple(row[np.argsort(visual_positions(text))].tolist()))
            for text, score, row in zip(decode_visually(self.charset, ids), scores, confidences, strict=True)
        ]

    def decode_ids(self, logits: NDArray[np.float32]) -> NDArray[np.int32]:
        """Returns the character IDs of the labels from left to right, int32 [B, longest], padded with 0."""
        ids = self._find_ids(logits)
        return ids[:, : int((ids != BLANK).sum(axis=1).max(initial=0))]

    def _find_ids(self, logits: NDArray[np.float32]) -> NDArray[np.int32]:
        if lexicon := self._lexicon:
            score = lexicon.score_time_steps if self.head == "ctc" else lexicon.score_positions
            found: NDArray[np.int32] = lexicon.ids[score(log_softmax(logits)).argmax(axis=1)]
            return found
        from features.runtime.keras_settings import ops

        ids: NDArray[np.int32] = ops.convert_to_numpy(_compile_greedy(self.head)(ops.convert_to_tensor(logits)))
        if self.strategy == "beam" and self.head == "ctc":
            images = zip(log_softmax(logits), ids.tolist(), strict=True)
            return _pad([self._search(steps, row) for steps, row in images])
        return ids

    def _search(self, log_probabilities: NDArray[np.float32], greedy: Sequence[int]) -> _Ids:
        """Returns the most probable label of a prefix beam search; `greedy` is the greedy label."""
        found = _prefix_beam_search(log_probabilities, self.beam_width)
        labels = list(dict.fromkeys([tuple(id_ for id_ in greedy if id_ != BLANK), *found]))
        # The search does not count the alignments of prefixes that it dropped.
        scores = Lexicon(_pad(labels)).score_time_steps(log_probabilities[None])[0]
        return labels[int(scores.argmax())]


@lru_cache
def _compile_greedy(head: "Head") -> Any:
    from features.runtime.keras_settings import compile_function
    from trainer.models.recognizer_heads import greedy_ids

    return compile_function(partial(greedy_ids, head))


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the log-probabilities of logits [..., classes]."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    normalized: NDArray[np.float32] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normalized


def _prefix_beam_search(log_probabilities: NDArray[np.float32], beam_width: int) -> list[_Ids]:
    """Returns the character IDs of the most probable labels of log-probabilities [T, classes], best first.

    The algorithm of Hannun et al. (2014, arXiv:1408.2873) without its language model. A prefix has two probabilities:
    of its alignments that end in a blank, and of its alignments that end in its last character. A beam as wide as the
    number of prefixes finds the most probable label. keras.ops.ctc_decode takes 18% of the time, but on TensorFlow it
    found a less probable label in 1 of 64 random images.
    """
    prefixes: _Prefixes = {(): (1.0, 0.0)}
    for probabilities in np.exp(log_probabilities.astype(np.float64)):
        prefixes = _extend(prefixes, probabilities, beam_width)
    return list(prefixes)


def _pad(labels: Sequence[_Ids]) -> NDArray[np.int32]:
    """Returns character IDs int32 [N, longest], padded with 0."""
    ids = np.full((len(labels), max(map(len, labels))), BLANK, np.int32)
    for row, label in zip(ids, labels, strict=True):
        row[: len(label)] = label
    return ids


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
