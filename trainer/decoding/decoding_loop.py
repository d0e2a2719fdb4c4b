"""Runs the decoding loop that beam search and sampling share: one token per step, until all captions are finished.

A caption of T tokens costs T steps, because the model's state is carried from step to step. A batch of images is
decoded together, in one compiled function.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.runtime.keras_settings import compile_function, ops
from schemas.table_config import END, PAD, START
from trainer.decoding.generation import GenerationConfig, GenerationOutput
from trainer.decoding.logits_processors import no_repeat_ngram_mask
from trainer.models.captioner import Captioner, State, bad_words_mask

# Tensors with one row per caption: token, finished, tokens, scores, attention, and those of a subclass.
DecodingState = dict[str, Any]


class AutoregressiveDecoder:
    """Generates `rows_per_image` captions per image of a batch, one token of every caption per step.

    A subclass implements `rows_per_image`, `decode_step`, `decode` and `__call__`; `compiled_decode` is `decode` as a
    compiled function. The model must be built.
    """

    decode: Callable[..., tuple[Any, Any, Any]]

    def __init__(self, model: Captioner, config: GenerationConfig) -> None:
        self.model = model
        self.config = config
        self.compiled_decode = compile_function(self.decode, model.variables)

    @property
    def rows_per_image(self) -> int:
        """Number of captions per image that are decoded together."""
        raise NotImplementedError

    def __call__(
        self, features: NDArray[Any], image_numbers: Sequence[int] = (), seed: int | None = None
    ) -> GenerationOutput:
        """Generates the captions of a batch.

        Args:
            features: float array [B, *shape].
            image_numbers: Position of each image in a request, which seeds its samples; 0, 1, … by default.
            seed: Seed of the samples; None for that of the config.
        """
        raise NotImplementedError

    def decode_step(self, position: Any, decoding: DecodingState, state: State) -> tuple[DecodingState, State]:
        """Adds the token at `position` to every caption, and returns the model's state after it."""
        raise NotImplementedError

    def run(self, features: Any, **initial: Any) -> DecodingState:
        """Decodes until every caption is finished or has `max_new_tokens` tokens.

        `initial` contains additional tensors of the decoding state, with one row per caption.
        """
        max_new_tokens, captions, state = self.config.max_new_tokens, self.rows_per_image, {}
        for name, value in self.model.init_state(features).items():
            state[name] = ops.repeat(value, captions, axis=0)
        rows = ops.shape(features)[0] * captions
        token = ops.full((rows,), START, dtype="int32")
        _, _, attention = self.model.step(token, state)
        locations = 0 if attention is None else attention.shape[-1]
        decoding = {
            "token": token,
            "finished": ops.zeros((rows,), dtype="bool"),
            "tokens": ops.zeros((rows, max_new_tokens), dtype="int32"),
            "scores": ops.zeros((rows,), dtype="float32"),
            "attention": ops.zeros((rows, max_new_tokens, locations), dtype="float32"),
            **initial,
        }
        _, decoding, _ = ops.while_loop(
            lambda position, decoding, state: ops.logical_not(ops.all(decoding["finished"])),
            lambda position, decoding, state: (position + 1, *self.decode_step(position, decoding, state)),
            (0, decoding, state),
            maximum_iterations=max_new_tokens,
        )
        result: DecodingState = decoding
        return result

    def process_logits(self, logits: Any, tokens: Any, position: Any) -> Any:
        """Returns the logits float32 [rows, V], masked for tokens that the config does not allow."""
        config, vocabulary = self.config, logits.shape[-1]
        processed = ops.cast(logits, "float32") + bad_words_mask(vocabulary, config.bad_word_ids)
        ngram_size = config.no_repeat_ngram_size
        if ngram_size and ngram_size <= config.max_new_tokens:
            processed += no_repeat_ngram_mask(tokens, position, ngram_size, vocabulary)
        return processed

    def append_token(self, decoding: DecodingState, position: Any, token: Any, attention: Any) -> DecodingState:
        """Returns the decoding state with `token` int32 [rows] at `position`, and its attention weights or None."""
        is_current = ops.equal(ops.arange(self.config.max_new_tokens), position)
        is_end = ops.equal(token, END)
        kept = ops.expand_dims(ops.where(is_end, PAD, token), 1)
        appended = {
            **decoding,
            "token": token,
            "finished": ops.logical_or(decoding["finished"], is_end),
            "tokens": ops.where(is_current, kept, decoding["tokens"]),
        }
        if attention is not None:
            attention = ops.expand_dims(ops.cast(attention, "float32"), 1)
            appended["attention"] = ops.where(ops.expand_dims(is_current, 1), attention, decoding["attention"])
        return appended

    def group_by_image(self, decoding: DecodingState) -> tuple[Any, Any, Any]:
        """Returns tokens [B, N, T], scores [B, N] and attention [B, N, T, locations]."""
        tokens, attention = decoding["tokens"], decoding["attention"]
        # Not −1, because the attention may be empty.
        images = ops.shape(tokens)[0] // self.rows_per_image
        return (
            ops.reshape(tokens, (images, self.rows_per_image, tokens.shape[-1])),
            ops.reshape(decoding["scores"], (images, self.rows_per_image)),
            ops.reshape(attention, (images, self.rows_per_image, *attention.shape[1:])),
        )


def to_output(tokens: Any, scores: Any, attention: Any, order: Any) -> GenerationOutput:
    """Returns the captions at integers [B, M], of tokens [B, N, T], scores [B, N], attention [B, N, T, locations]."""
    tokens, scores, attention = (
        np.take_along_axis(array, order.reshape(order.shape + (1,) * (array.ndim - 2)), axis=1)
        for array in map(ops.convert_to_numpy, (tokens, scores, attention))
    )
    return GenerationOutput(tokens, scores, attention if attention.shape[-1] else None)
