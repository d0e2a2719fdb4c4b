"""Greedy reading: the word of the likeliest letters, in operations of the backend, so that graphs can have it too."""

from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from features.runtime.keras_settings import ops
from trainer.decoding.generation import compile_function
from trainer.models.charset import BLANK
from trainer.models.ctc_losses import ctc_losses

Head = Literal["ctc", "attention"]


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


def greedy_arrays(head: Head, logits: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """What `greedy` gives, compiled, as arrays."""
    ids, scores = _compiled(head)(ops.convert_to_tensor(logits))
    return ops.convert_to_numpy(ids), ops.convert_to_numpy(scores)


@lru_cache
def _compiled(head: Head) -> Any:
    return compile_function(partial(greedy, head))


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
