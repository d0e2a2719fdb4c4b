"""Greedy decoding: a batch of images becomes captions in one compiled loop that carries the model's state."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from schemas.recipes import END, PAD, START
from trainer.captioner import Captioner
from trainer.losses import NEVER_SAID

_NEVER = -1e9


@dataclass(frozen=True)
class Decoded:
    """Captions as word ids.

    Args:
        words: int32 array [B, T]. Word ids without start and end, 0 after the last.
        scores: float32 array [B]. Natural logarithm of each caption's probability, its end included.
        attention: float32 array [B, T, places], the weights that each word was said under, or None.
    """

    words: NDArray[np.int32]
    scores: NDArray[np.float32]
    attention: NDArray[np.float32] | None


class GreedyDecoder:
    """Says the likeliest next word until the end token, or until `max_words` are said.

    Padding, the unknown word and the start token are never said; probabilities are those among the other words.

    Args:
        model: Captioner. Built and loaded.
        max_words: int. Words at most, at least 1.
    """

    def __init__(self, model: Captioner, max_words: int) -> None:
        self.model = model
        self.max_words = max_words
        self._loop = compiled(self._decode)

    def __call__(self, features: NDArray[Any]) -> Decoded:
        """The captions of a batch.

        Args:
            features: float array [B, *shape].
        """
        words, scores, attention = self._loop(ops.convert_to_tensor(features))
        return Decoded(
            ops.convert_to_numpy(words),
            ops.convert_to_numpy(scores),
            None if attention is None else ops.convert_to_numpy(attention),
        )

    def _decode(self, features: Any) -> tuple[Any, Any, Any]:
        batch = ops.shape(features)[0]
        state = self.model.begin(features)
        said = {
            "token": ops.full((batch,), START, dtype="int32"),
            "over": ops.zeros((batch,), dtype="bool"),
            "words": ops.zeros((batch, self.max_words), dtype="int32"),
            "scores": ops.zeros((batch,), dtype="float32"),
        }
        _, _, attention = self.model.step(said["token"], state)
        if attention is not None:
            said["attention"] = ops.zeros((batch, self.max_words, attention.shape[-1]), dtype="float32")
        _, said, _ = ops.while_loop(self._goes_on, self._say, (0, said, state), maximum_iterations=self.max_words)
        return said["words"], said["scores"], said.get("attention")

    def _goes_on(self, position: Any, said: dict[str, Any], state: Any) -> Any:
        return ops.logical_not(ops.all(said["over"]))

    def _say(self, position: Any, said: dict[str, Any], state: Any) -> tuple[Any, dict[str, Any], Any]:
        logits, state, attention = self.model.step(said["token"], state)
        token, logarithm = likeliest(logits)
        token = ops.where(said["over"], PAD, token)
        here = ops.expand_dims(ops.equal(ops.arange(self.max_words), position), 0)
        word = ops.where(ops.equal(token, END), PAD, token)
        now = {
            "token": token,
            "over": ops.logical_or(said["over"], ops.equal(token, END)),
            "words": ops.where(here, ops.expand_dims(word, 1), said["words"]),
            "scores": said["scores"] + ops.where(said["over"], 0.0, logarithm),
        }
        if attention is not None:
            seen = ops.expand_dims(ops.cast(attention, "float32"), 1)
            now["attention"] = ops.where(ops.expand_dims(here, -1), seen, said["attention"])
        return position + 1, now, state


def likeliest(logits: Any) -> tuple[Any, Any]:
    """The likeliest word that may be said.

    Args:
        logits: float [B, V].

    Returns:
        Word ids int32 [B] and their log-probabilities float32 [B] among the words that may be said.
    """
    allowed = ops.cast(logits, "float32") + banned_logits(logits.shape[-1])
    token = ops.cast(ops.argmax(allowed, axis=-1), "int32")
    best = ops.max(allowed, axis=-1)
    return token, best - ops.logsumexp(allowed, axis=-1)


def banned_logits(vocabulary: int) -> NDArray[np.float32]:
    """float32 array [V] to add to logits: 0 for words that may be said, −10⁹ for the others."""
    penalty = np.zeros(vocabulary, np.float32)
    penalty[list(NEVER_SAID)] = _NEVER
    return penalty


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as one compiled graph for batches of any size on TensorFlow; as it is on other backends."""
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    return tf.function(function, reduce_retracing=True)
