"""Sampling: captions drawn word by word, the same ones for the same seed.

What is drawn of an image depends on the seed and on which image of a request it is, not on the batch it comes in.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.runtime.keras_settings import ops
from schemas.table_config import PAD
from trainer.decoding.decoding_loop import AutoregressiveDecoder, Said
from trainer.decoding.generation import GenerationConfig, GenerationOutput
from trainer.decoding.logits_processors import top_k_top_p_mask
from trainer.models.captioner import Captioner, State


class SamplingDecoder(AutoregressiveDecoder):
    """Draws captions.

    Args:
        model: Captioner. Built.
        decoding: GenerationConfig. With a temperature.
    """

    def __init__(self, model: Captioner, decoding: GenerationConfig) -> None:
        super().__init__(model, decoding, decoding.num_return_sequences)

    def __call__(self, features: NDArray[Any], numbers: Sequence[int] = ()) -> GenerationOutput:
        """The captions of a batch, those of an image by their scores.

        Args:
            features: float array [B, *shape].
            numbers: sequence of int. Which image of a request each is; from 0 on where nothing is said.
        """
        draws = np.concatenate([self._draws(number) for number in numbers or range(len(features))])
        words, scores, attention = (
            ops.convert_to_numpy(tensor) for tensor in self.loop(ops.convert_to_tensor(features), draws)
        )
        order = np.argsort(-scores, axis=1, kind="stable")
        words, scores, attention = (
            np.take_along_axis(array, order.reshape(order.shape + (1,) * (array.ndim - 2)), axis=1)
            for array in (words, scores, attention)
        )
        return GenerationOutput(words, scores, attention if attention.shape[-1] else None)

    def decode(self, features: Any, draws: Any) -> tuple[Any, Any, Any]:
        """Words [B, N, T], scores [B, N] and attention [B, N, T, places], as tensors.

        Args:
            features: float [B, *shape].
            draws: float32 [B · N, T]. Numbers in 0 … 1, one a word.
        """
        return self.by_image(self.saying(features, {"draws": draws}))

    def say(self, position: Any, said: Said, state: State) -> tuple[Said, State]:
        """One more word of each caption that is not over."""
        logits, state, seen = self.model.step(said["token"], state)
        draw = ops.take(said["draws"], ops.reshape(position, (1,)), axis=1)
        token, logarithm = self._drawn(self.allowed(logits, said["words"], position), draw)
        scores = said["scores"] + ops.where(said["over"], 0.0, logarithm)
        token = ops.where(said["over"], PAD, token)
        return self.with_word({**said, "scores": scores}, position, token, seen), state

    def _draws(self, image: int) -> NDArray[np.float32]:
        """Numbers [num_return_sequences, max_new_tokens] in 0 … 1, one a word."""
        shape = (self.captions, self.decoding.max_new_tokens)
        return np.random.default_rng([self.decoding.seed, image]).random(shape, np.float32)

    def _drawn(self, allowed: Any, draw: Any) -> tuple[Any, Any]:
        """Words int32 [rows], and their log-probabilities among all that may be said, at temperature 1."""
        rules = self.decoding
        bold = allowed / rules.temperature
        reach = ops.cumsum(ops.softmax(bold + top_k_top_p_mask(bold, rules.top_k, rules.top_p), axis=-1), axis=-1)
        # The last sum may be a little less than 1.
        token = ops.sum(ops.cast(reach <= draw * reach[:, -1:], "int32"), axis=-1)
        token = ops.minimum(token, allowed.shape[-1] - 1)
        chosen = ops.take_along_axis(ops.log_softmax(allowed, axis=-1), ops.expand_dims(token, 1), axis=1)
        return token, ops.squeeze(chosen, 1)
