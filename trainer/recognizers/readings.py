"""Readings: the word that a recognizer's logits say, by the likeliest letters, by search, or from a list of words.

    greedy    the likeliest class of every frame (CTC), or the likeliest word (attention, whose positions are apart)
    beam      the word likeliest over all its alignments, searched for; never less likely than the greedy one
    lexicon   the likeliest word of a list

A reading's score is the same in all three: the log-probability of its word, over all alignments.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
from keras import ops
from numpy.typing import NDArray

from trainer.decoding.decoder import compiled
from trainer.recognizers.alphabet import BLANK, decode
from trainer.recognizers.lexicon import Lexicon
from trainer.recognizers.losses import ctc_losses
from trainer.recognizers.prefix_search import likeliest_words

Head = Literal["ctc", "attention"]
How = Literal["greedy", "beam", "lexicon"]
BEAM = 10


@dataclass(frozen=True)
class Reading:
    """A word read in an image.

    Args:
        text: str. Of the letters a to z; it can be empty.
        score: float. The natural logarithm of the probability that the model gives to it.
    """

    text: str
    score: float


class Reader:
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

    def __init__(self, head: Head, how: How, words: Sequence[str] = (), beam: int = BEAM) -> None:
        self.head = head
        self.how = how
        self.beam = beam
        self._lexicon = Lexicon(words) if how == "lexicon" else None

    def __call__(self, logits: NDArray[np.float32]) -> list[Reading]:
        if not len(logits):
            return []
        if self._lexicon:
            return self._from_list(self._lexicon, logits)
        ids, scores = (
            ops.convert_to_numpy(part) for part in _compiled_greedy(self.head)(ops.convert_to_tensor(logits))
        )
        readings = [Reading(text, float(score)) for text, score in zip(decode(ids), scores, strict=True)]
        if self.how == "greedy" or self.head == "attention":
            return readings
        return [self._searched(frames, reading) for frames, reading in zip(_log_softmax(logits), readings, strict=True)]

    def _from_list(self, lexicon: Lexicon, logits: NDArray[np.float32]) -> list[Reading]:
        chances = _log_softmax(logits)
        scores = lexicon.in_frames(chances) if self.head == "ctc" else lexicon.at_positions(chances)
        return [
            Reading(lexicon.words[best], float(row[best])) for row, best in zip(scores, scores.argmax(1), strict=True)
        ]

    def _searched(self, frames: NDArray[np.float32], greedy: Reading) -> Reading:
        found = likeliest_words(frames, self.beam)
        # The search's own probabilities lack what came from prefixes that it dropped.
        lexicon = Lexicon(list(dict.fromkeys([greedy.text, *found])))
        scores = lexicon.in_frames(frames[None])[0]
        return Reading(lexicon.words[scores.argmax()], float(scores.max()))


def greedy(head: Head, logits: Any) -> tuple[Any, Any]:
    """The word of each image by its likeliest letters, in operations of the backend.

    Args:
        head: str. `ctc`: the likeliest class of every frame, where a repeated letter counts once and blanks say
            nothing; `attention`: the likeliest word, a letter a position and then nothing.
        logits: float32 [B, T, 27].

    Returns:
        ids: int32 [B, T]. Its letters, then zeros.
        scores: float32 [B]. Its log-probability, over all alignments.
    """
    if head == "attention":
        return _likeliest_word(logits)
    ids = _likeliest_classes(logits)
    return ids, -ctc_losses(ids, ops.cast(logits, "float32"))


def greedy_ids(head: Head, logits: Any) -> Any:
    """The letters alone of `greedy`, int32 [B, T], which cost next to nothing."""
    return _likeliest_classes(logits) if head == "ctc" else _likeliest_word(logits)[0]


@lru_cache
def _compiled_greedy(head: Head) -> Any:
    return compiled(partial(greedy, head))


def _likeliest_classes(logits: Any) -> Any:
    ids = ops.cast(ops.argmax(logits, axis=-1), "int32")
    before = ops.pad(ids[:, :-1], [[0, 0], [1, 0]], constant_values=BLANK)
    ids = ops.where(ops.equal(ids, before), BLANK, ids)
    frames = ops.shape(ids)[1]
    order = ops.argsort(ops.cast(ops.equal(ids, BLANK), "int32") * frames + ops.arange(frames), axis=1)
    return ops.take_along_axis(ids, order, axis=1)


def _likeliest_word(logits: Any) -> tuple[Any, Any]:
    chances = ops.log_softmax(ops.cast(logits, "float32"), axis=-1)
    letters = 1 + ops.cast(ops.argmax(chances[..., 1:], axis=-1), "int32")
    said = ops.cumsum(ops.pad(ops.max(chances[..., 1:], axis=-1), [[0, 0], [1, 0]]), axis=1)
    silent = ops.cumsum(ops.pad(chances[..., BLANK], [[0, 0], [1, 0]]), axis=1)
    # Of a word of n letters, for each n from 0 on: its letters, and nothing at the positions after them.
    scores = said + silent[:, -1:] - silent
    length = ops.cast(ops.argmax(scores, axis=1), "int32")
    ids = ops.where(ops.arange(ops.shape(letters)[1]) < ops.expand_dims(length, 1), letters, BLANK)
    return ids, ops.max(scores, axis=1)


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
