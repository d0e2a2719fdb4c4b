"""Predicts labels from a recognizer's logits.

    greedy    lexicon-free: the most probable class per time step (CTC), or the most probable label (attention)
    beam      lexicon-free: the most probable label of a prefix beam search; never less probable than the greedy one
    lexicon   lexicon-constrained: the most probable word of a word list

All strategies score a label by its log-probability over all alignments.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from schemas.choices import DecodingStrategy
from trainer.decoding.lexicon import Lexicon
from trainer.decoding.prefix_beam_search import prefix_beam_search
from trainer.models.charset import decode

if TYPE_CHECKING:
    from trainer.models.recognizer_heads import Head

BEAM_WIDTH = 10


@dataclass(frozen=True)
class Prediction:
    """A predicted label.

    Args:
        text: Characters a to z; may be empty.
        score: Log-probability of the label.
    """

    text: str
    score: float


class LabelDecoder:
    """Predicts labels from logits.

    Args:
        head: Head that computed the logits, `ctc` or `attention`.
        strategy: Decoding strategy.
        words: Distinct words of the lexicon; used by `lexicon` only.
        beam_width: Number of prefixes per time step; used by `beam` only.

    Call arguments:
        logits: float array [B, T, 27].

    Returns:
        One prediction per image.
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
        if self._lexicon:
            return self._predict_from_lexicon(self._lexicon, logits)
        predictions = self._predict_greedily(logits)
        if self.strategy == "greedy" or self.head == "attention":
            return predictions
        return [self._search(steps, greedy) for steps, greedy in zip(_log_softmax(logits), predictions, strict=True)]

    def _predict_from_lexicon(self, lexicon: Lexicon, logits: NDArray[np.float32]) -> list[Prediction]:
        score = lexicon.score_time_steps if self.head == "ctc" else lexicon.score_positions
        return [Prediction(lexicon.words[row.argmax()], float(row.max())) for row in score(_log_softmax(logits))]

    def _predict_greedily(self, logits: NDArray[np.float32]) -> list[Prediction]:
        from features.runtime.keras_settings import ops

        ids, scores = map(ops.convert_to_numpy, _compile_greedy(self.head)(ops.convert_to_tensor(logits)))
        return [Prediction(text, float(score)) for text, score in zip(decode(ids), scores, strict=True)]

    def _search(self, log_probabilities: NDArray[np.float32], greedy: Prediction) -> Prediction:
        found = prefix_beam_search(log_probabilities, self.beam_width)
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
