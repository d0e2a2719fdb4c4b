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
from schemas.recipes import Settings

if TYPE_CHECKING:
    from trainer.captioners.captioner import Captioner

# No caption of words that may be said is as unlikely.
IMPOSSIBLE = -1e8


class Decoding(Settings):
    """How captions are chosen: by beam search, or, where a temperature is given, by drawing.

    Args:
        max_words: int. Words at most.
        beam: int. Captions kept in mind; 1 says the likeliest next word (greedy).
        length_penalty: float. Captions are compared by their log-probability over words to this power, the end counting
            as a word: 1 compares the mean, 0 prefers short ones.
        n_best: int. Captions given back of each image, best first.
        temperature: float or None. Draws words; the logits are divided by it, so less than 1 is bolder.
        top_k: int or None. Draws from so many words.
        top_p: float or None. Draws from the fewest words that have so much of the probability together.
        seed: int. Decides what is drawn.
        no_repeat: int or None. No run of so many words is said twice.
        banned: tuple of int. Word ids that are not said.
    """

    max_words: int = Field(ge=1)
    beam: int = Field(1, ge=1)
    length_penalty: float = Field(1.0, ge=0)
    n_best: int = Field(1, ge=1)
    temperature: float | None = Field(None, gt=0)
    top_k: int | None = Field(None, ge=1)
    top_p: float | None = Field(None, gt=0, le=1)
    seed: int = Field(0, ge=0)
    no_repeat: int | None = Field(None, ge=1)
    banned: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> "Decoding":
        if self.temperature is None and (self.top_k or self.top_p):
            raise ValueError("top_k and top_p are for drawing: give a temperature")
        if self.temperature is not None and self.beam > 1:
            raise ValueError("words are drawn or searched for: give a temperature or a beam")
        if self.temperature is None and self.n_best > self.beam:
            raise ValueError(f"a beam of {self.beam} gives no {self.n_best} captions")
        return self


@dataclass(frozen=True)
class Decoded:
    """Captions as word ids, `n_best` an image, best first.

    Args:
        words: int32 array [B, N, T]. Word ids without start and end, 0 after the last.
        scores: float32 array [B, N]. Natural logarithm of each caption's probability, its end included; less than
            `IMPOSSIBLE` where there are fewer captions than were asked for.
        attention: float32 array [B, N, T, places], the weights that each word was said under, or None.
    """

    words: NDArray[np.int32]
    scores: NDArray[np.float32]
    attention: NDArray[np.float32] | None


Decoder = Callable[..., Decoded]


def make_decoder(model: "Captioner", decoding: Decoding) -> Decoder:
    """The decoder of a model: features [B, *shape], and the images' numbers in a request, to `Decoded`.

    Args:
        model: Captioner. Built; its weights may go on changing.
        decoding: Decoding. What it does.

    Raises:
        UsageError: captions are to be longer than the model can make them.
    """
    if model.most_words is not None and decoding.max_words > model.most_words:
        raise UsageError(
            f"captions of {decoding.max_words} words are asked for, and the model says {model.most_words} at most",
            where="--max-words",
        )
    from trainer.decoding.beam import BeamDecoder
    from trainer.decoding.sampling import SamplingDecoder

    return BeamDecoder(model, decoding) if decoding.temperature is None else SamplingDecoder(model, decoding)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as one compiled graph for batches of any size on TensorFlow; as it is on other backends."""
    from features.keras_settings import keras

    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    return tf.function(function, reduce_retracing=True)
