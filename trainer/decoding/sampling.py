"""Generates captions by sampling token by token; the same seed produces the same captions.

The samples of an image depend on the seed and on the image's position in a request, not on its batch.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.runtime.keras_settings import ops
from schemas.table_config import PAD
from trainer.decoding.decoding_loop import AutoregressiveDecoder, DecodingState, to_output
from trainer.decoding.generation import GenerationOutput
from trainer.decoding.logits_processors import top_k_top_p_mask
from trainer.models.captioner import State


class SamplingDecoder(AutoregressiveDecoder):
    """Samples captions, and sorts those of an image by their scores; the generation config has a temperature."""

    @property
    def rows_per_image(self) -> int:
        return self.config.num_return_sequences

    def __call__(
        self, features: NDArray[Any], image_numbers: Sequence[int] = (), seed: int | None = None
    ) -> GenerationOutput:
        shape, seed = (self.rows_per_image, self.config.max_new_tokens), self.config.seed if seed is None else seed
        numbers = image_numbers or range(len(features))
        samples = np.concatenate([np.random.default_rng([seed, image]).random(shape, np.float32) for image in numbers])
        tokens, scores, attention = self.compiled_decode(ops.convert_to_tensor(features), samples)
        order = np.argsort(-ops.convert_to_numpy(scores), axis=1, kind="stable")
        return to_output(tokens, scores, attention, order)

    def decode(self, features: Any, samples: Any) -> tuple[Any, Any, Any]:
        """Returns the result of `group_by_image`, for uniform random numbers in 0 … 1, float32 [B · N, T]."""
        return self.group_by_image(self.run(features, samples=samples))

    def decode_step(self, position: Any, decoding: DecodingState, state: State) -> tuple[DecodingState, State]:
        logits, state, attention = self.model.step(decoding["token"], state)
        sample = ops.take(decoding["samples"], ops.reshape(position, (1,)), axis=1)
        token, score = self._sample_token(self.process_logits(logits, decoding["tokens"], position), sample)
        scores = decoding["scores"] + ops.where(decoding["finished"], 0.0, score)
        token = ops.where(decoding["finished"], PAD, token)
        return self.append_token({**decoding, "scores": scores}, position, token, attention), state

    def _sample_token(self, logits: Any, sample: Any) -> tuple[Any, Any]:
        """Returns tokens int32 [rows], and their log-probabilities at temperature 1 among all allowed tokens."""
        scaled = logits / self.config.temperature
        mask = top_k_top_p_mask(scaled, self.config.top_k, self.config.top_p)
        cumulative = ops.cumsum(ops.softmax(scaled + mask, axis=-1), axis=-1)
        # Rounding can leave the last sum below 1.
        token = ops.sum(ops.cast(cumulative <= sample * cumulative[:, -1:], "int32"), axis=-1)
        token = ops.minimum(token, logits.shape[-1] - 1)
        selected = ops.take_along_axis(ops.log_softmax(logits, axis=-1), ops.expand_dims(token, 1), axis=1)
        return token, ops.squeeze(selected, 1)
