"""Decoding: how a caption is chosen from a model's logits, and what comes out.

A caption of T words costs T steps, for the model's state is carried, and a batch of images is decoded together in one
compiled function.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from schemas.errors import UsageError
from schemas.frozen import Settings

if TYPE_CHECKING:
    from trainer.models.captioner import Captioner

# No caption of words that may be said is as unlikely.
IMPOSSIBLE = -1e8


class GenerationConfig(Settings):
    """How captions are generated: by beam search, or, with a temperature, by sampling.

    Args:
        max_new_tokens: Maximum number of generated tokens per caption; the end token counts.
        num_beams: Beam width; 1 is greedy decoding.
        length_penalty: Exponent of the length that divides the log-probability when beams are ranked; the end token
            counts. 1 ranks by the mean, 0 favors short captions.
        num_return_sequences: Number of captions per image, best first.
        temperature: Softmax temperature of sampling: below 1 is more conservative.
        top_k: Sample only from the k most probable tokens.
        top_p: Sample from the smallest set of tokens with at least this probability in total.
        seed: Seed of sampling.
        no_repeat_ngram_size: No n-gram of this length is generated twice.
        bad_word_ids: Token IDs that are never generated.
    """

    max_new_tokens: int = Field(ge=1)
    num_beams: int = Field(1, ge=1)
    length_penalty: float = Field(1.0, ge=0)
    num_return_sequences: int = Field(1, ge=1)
    temperature: float | None = Field(None, gt=0)
    top_k: int | None = Field(None, ge=1)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int = Field(0, ge=0)
    no_repeat_ngram_size: int | None = Field(None, ge=1)
    bad_word_ids: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> "GenerationConfig":
        if self.temperature is None and (self.top_k or self.top_p):
            raise ValueError("top_k and top_p require a temperature")
        if self.temperature is not None and self.num_beams > 1:
            raise ValueError("a temperature cannot be combined with a beam width above 1")
        if self.temperature is None and self.num_return_sequences > self.num_beams:
            raise ValueError(f"{self.num_return_sequences} captions need a beam width of as many")
        return self


@dataclass(frozen=True)
class GenerationOutput:
    """Captions as word ids, `num_return_sequences` per image, best first.

    Args:
        words: int32 array [B, N, T]. Word ids without start and end, 0 after the last.
        scores: float32 array [B, N]. Natural logarithm of each caption's probability, its end included; less than
            `IMPOSSIBLE` where there are fewer captions than were asked for.
        attention: float32 array [B, N, T, places], the weights that each word was said under, or None.
    """

    words: NDArray[np.int32]
    scores: NDArray[np.float32]
    attention: NDArray[np.float32] | None


Decoder = Callable[..., GenerationOutput]


def make_decoder(model: "Captioner", decoding: GenerationConfig) -> Decoder:
    """The decoder of a model: features [B, *shape], and the images' numbers in a request, to `Decoded`.

    Args:
        model: Captioner. Built; its weights may go on changing.
        decoding: GenerationConfig. What it does.

    Raises:
        UsageError: captions are to be longer than the model can make them.
    """
    longest = model.max_caption_length
    if longest is not None and decoding.max_new_tokens > longest + 1:
        raise UsageError(
            f"{decoding.max_new_tokens} is more than the {longest + 1} tokens that the model can generate",
            location="--max-new-tokens",
        )
    from trainer.decoding.beam_search import BeamDecoder
    from trainer.decoding.sampling import SamplingDecoder

    return BeamDecoder(model, decoding) if decoding.temperature is None else SamplingDecoder(model, decoding)


def compile_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as one compiled graph for batches of any size on TensorFlow; as it is on other backends."""
    from features.runtime.keras_settings import keras

    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    return tf.function(function, reduce_retracing=True)
