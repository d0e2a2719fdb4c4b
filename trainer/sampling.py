"""Sampling: captions drawn word by word, the same ones for the same seed.

What is drawn of an image depends on the seed and on which image of a request it is, not on the batch it comes in.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from schemas.recipes import END, PAD, START
from trainer.captioner import Captioner, State
from trainer.constraints import banned_logits, repeated_ngrams, unlikely_words
from trainer.decoding import Decoded, Decoding, compiled


class SamplingDecoder:
    """Draws captions.

    Args:
        model: Captioner. Built.
        decoding: Decoding. With a temperature.
    """

    def __init__(self, model: Captioner, decoding: Decoding) -> None:
        self.model = model
        self.decoding = decoding
        self._loop = compiled(self._decode)

    def __call__(self, features: NDArray[Any], numbers: Sequence[int] = ()) -> Decoded:
        """The captions of a batch, those of an image by their scores.

        Args:
            features: float array [B, *shape].
            numbers: sequence of int. Which image of a request each is; from 0 on where nothing is said.
        """
        draws = np.stack([self._draws(number) for number in numbers or range(len(features))])
        words, scores, attention = (
            ops.convert_to_numpy(tensor) for tensor in self._loop(ops.convert_to_tensor(features), draws)
        )
        order = np.argsort(-scores, axis=1, kind="stable")
        words, scores, attention = (
            np.take_along_axis(array, order.reshape(order.shape + (1,) * (array.ndim - 2)), axis=1)
            for array in (words, scores, attention)
        )
        return Decoded(words, scores, attention if attention.shape[-1] else None)

    def _draws(self, image: int) -> NDArray[np.float32]:
        """Numbers [n_best, max_words] in 0 … 1, one a word."""
        shape = (self.decoding.n_best, self.decoding.max_words)
        return np.random.default_rng([self.decoding.seed, image]).random(shape, np.float32)

    def _decode(self, features: Any, draws: Any) -> tuple[Any, Any, Any]:
        count, most = self.decoding.n_best, self.decoding.max_words
        state = {name: ops.repeat(value, count, axis=0) for name, value in self.model.begin(features).items()}
        batch = ops.shape(features)[0]
        token = ops.full((batch * count,), START, dtype="int32")
        _, _, seen = self.model.step(token, state)
        places = 0 if seen is None else seen.shape[-1]
        said = {
            "token": token,
            "over": ops.zeros((batch * count,), dtype="bool"),
            "words": ops.zeros((batch * count, most), dtype="int32"),
            "scores": ops.zeros((batch * count,), dtype="float32"),
            "attention": ops.zeros((batch * count, most, places), dtype="float32"),
            "draws": ops.reshape(draws, (batch * count, most)),
        }
        _, said, _ = ops.while_loop(self._goes_on, self._say, (0, said, state), maximum_iterations=most)
        return (
            ops.reshape(said["words"], (batch, count, most)),
            ops.reshape(said["scores"], (batch, count)),
            ops.reshape(said["attention"], (batch, count, most, places)),
        )

    def _goes_on(self, position: Any, said: dict[str, Any], state: State) -> Any:
        return ops.logical_not(ops.all(said["over"]))

    def _say(self, position: Any, said: dict[str, Any], state: State) -> tuple[Any, dict[str, Any], State]:
        logits, state, seen = self.model.step(said["token"], state)
        draw = ops.take(said["draws"], ops.reshape(position, (1,)), axis=1)
        token, logarithm = self._drawn(logits, said["words"], position, draw)
        token = ops.where(said["over"], PAD, token)
        here = ops.equal(ops.arange(self.decoding.max_words), position)
        word = ops.expand_dims(ops.where(ops.equal(token, END), PAD, token), 1)
        now = {
            **said,
            "token": token,
            "over": ops.logical_or(said["over"], ops.equal(token, END)),
            "words": ops.where(here, word, said["words"]),
            "scores": said["scores"] + ops.where(said["over"], 0.0, logarithm),
        }
        if seen is not None:
            seen = ops.expand_dims(ops.cast(seen, "float32"), 1)
            now["attention"] = ops.where(ops.expand_dims(here, 1), seen, said["attention"])
        return position + 1, now, state

    def _drawn(self, logits: Any, words: Any, position: Any, draw: Any) -> tuple[Any, Any]:
        """Words int32 [rows], and their log-probabilities among all that may be said, at temperature 1."""
        rules, vocabulary = self.decoding, logits.shape[-1]
        allowed = ops.cast(logits, "float32") + banned_logits(vocabulary, rules.banned)
        if rules.no_repeat:
            allowed += repeated_ngrams(words, position, rules.no_repeat, vocabulary)
        bold = allowed / rules.temperature
        reach = ops.cumsum(ops.softmax(bold + unlikely_words(bold, rules.top_k, rules.top_p), axis=-1), axis=-1)
        # The last sum may be a little less than 1.
        token = ops.sum(ops.cast(reach <= draw * reach[:, -1:], "int32"), axis=-1)
        token = ops.minimum(token, vocabulary - 1)
        chosen = ops.take_along_axis(ops.log_softmax(allowed, axis=-1), ops.expand_dims(token, 1), axis=1)
        return token, ops.squeeze(chosen, 1)
