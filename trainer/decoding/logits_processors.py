"""Computes masks that are added to the logits of a step: 0 for allowed tokens, −10⁹ for the others."""

from typing import Any

import numpy as np

from features.runtime.keras_settings import ops
from trainer.models.captioner import MASKED_LOGIT


def no_repeat_ngram_mask(tokens: Any, position: Any, size: int, vocabulary: int) -> Any:
    """Masks tokens that would repeat an n-gram, float32 [B, vocabulary]: at most −10⁹ for the masked tokens.

    Args:
        tokens: int32 [B, T]. The generated tokens, up to `position`.
        position: int32 scalar. Number of generated tokens.
        size: Length n of the n-grams, at least 1.
        vocabulary: Vocabulary size.
    """
    batch, max_tokens = ops.shape(tokens)[0], tokens.shape[1]
    windows = max(max_tokens - size + 1, 0)
    matches = ops.ones((batch, windows), "bool")
    for offset in range(size - 1):
        index = ops.maximum(position - (size - 1) + offset, 0)
        last = ops.take(tokens, ops.reshape(index, (1,)), axis=1)
        matches = ops.logical_and(matches, ops.equal(tokens[:, offset : offset + windows], last))
    is_complete = ops.logical_and(ops.arange(windows) + size - 1 < position, position >= size - 1)
    matches = ops.logical_and(matches, ops.expand_dims(is_complete, 0))
    rows = ops.repeat(ops.arange(batch), windows)
    next_tokens = ops.reshape(tokens[:, size - 1 : size - 1 + windows], (-1,))
    penalties = ops.where(ops.reshape(matches, (-1,)), MASKED_LOGIT, 0.0)
    return ops.scatter(ops.stack([rows, next_tokens], axis=1), penalties, (batch, vocabulary))


def top_k_top_p_mask(logits: Any, top_k: int | None, top_p: float | None) -> Any:
    """Masks all but the most probable tokens, float32 [B, V].

    Args:
        logits: float32 [B, V].
        top_k: Number of tokens to keep (Fan et al., 2018, arXiv:1805.04833).
        top_p: Keep the smallest set of tokens with at least this total probability (Holtzman et al., 2020,
            arXiv:1904.09751).
    """
    threshold = ops.full_like(logits[:, :1], -np.inf)
    if top_k is not None:
        best, _ = ops.top_k(logits, min(top_k, logits.shape[-1]))
        threshold = best[:, -1:]
    if top_p is not None:
        ranked = ops.flip(ops.sort(logits, axis=-1), axis=-1)
        probabilities = ops.softmax(ranked, axis=-1)
        before = ops.cumsum(probabilities, axis=-1) - probabilities
        # Rounding must not exclude the most probable token.
        kept = ops.where(before < max(top_p, np.finfo(np.float32).tiny), ranked, np.inf)
        threshold = ops.maximum(threshold, ops.min(kept, axis=-1, keepdims=True))
    return ops.where(logits >= threshold, 0.0, MASKED_LOGIT)
