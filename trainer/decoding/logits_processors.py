"""Constraints: which words may be said next, as penalties on their logits.

Everything is an addition of 0 or −10⁹ to the logits of a step, so a constraint costs no step of its own.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.runtime.keras_settings import ops
from trainer.models.losses import NEVER_GENERATED

NEVER = -1e9


def bad_words_mask(vocabulary: int, banned: Sequence[int] = ()) -> NDArray[np.float32]:
    """float32 array [V] to add to logits: 0 for words that may be said, −10⁹ for the others.

    Args:
        vocabulary: int. Number of word ids.
        banned: sequence of int. Ids that may not be said, besides padding, the unknown word and the start token.
    """
    penalty = np.zeros(vocabulary, np.float32)
    penalty[[*NEVER_GENERATED, *banned]] = NEVER
    return penalty


def no_repeat_ngram_mask(words: Any, position: Any, size: int, vocabulary: int) -> Any:
    """float32 [B, V] to add to logits: at most −10⁹ for words that would say an n-gram again, 0 for the others.

    Args:
        words: int32 [B, T]. What is said so far, up to `position`.
        position: int32 scalar. How many words are said.
        size: int. n, at least 1.
        vocabulary: int. V.
    """
    batch, most = ops.shape(words)[0], words.shape[1]
    windows = max(most - size + 1, 0)
    matches = ops.ones((batch, windows), "bool")
    for offset in range(size - 1):
        place = ops.maximum(position - (size - 1) + offset, 0)
        last = ops.take(words, ops.reshape(place, (1,)), axis=1)
        matches = ops.logical_and(matches, ops.equal(words[:, offset : offset + windows], last))
    whole = ops.logical_and(ops.arange(windows) + size - 1 < position, position >= size - 1)
    matches = ops.logical_and(matches, ops.expand_dims(whole, 0))
    rows = ops.repeat(ops.arange(batch), windows)
    following = ops.reshape(words[:, size - 1 : size - 1 + windows], (-1,))
    penalties = ops.where(ops.reshape(matches, (-1,)), NEVER, 0.0)
    return ops.scatter(ops.stack([rows, following], axis=1), penalties, (batch, vocabulary))


def top_k_top_p_mask(logits: Any, top_k: int | None, top_p: float | None) -> Any:
    """float32 [B, V] to add to logits: 0 for the likeliest words, −10⁹ for the others.

    Args:
        logits: float32 [B, V].
        top_k: int or None. Keep so many (Fan et al., 2018, arXiv:1805.04833).
        top_p: float or None. Keep the fewest that have so much of the probability together (Holtzman et al., 2020,
            arXiv:1904.09751).
    """
    least = ops.full_like(logits[:, :1], -np.inf)
    if top_k is not None:
        best, _ = ops.top_k(logits, min(top_k, logits.shape[-1]))
        least = best[:, -1:]
    if top_p is not None:
        ranked = ops.flip(ops.sort(logits, axis=-1), axis=-1)
        shares = ops.softmax(ranked, axis=-1)
        before = ops.cumsum(shares, axis=-1) - shares
        least = ops.maximum(least, ops.min(ops.where(before < top_p, ranked, np.inf), axis=-1, keepdims=True))
    return ops.where(logits >= least, 0.0, NEVER)
