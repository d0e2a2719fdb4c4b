"""Defines the transformer: every word attends to the words before it and to the image's locations.

The decoder of Attention Is All You Need (Vaswani et al., 2017, arXiv:1706.03762):

    x = embedded words + learned positions
    layer:   x ← norm(x + self-attention(x))                 to this word and the words before it
             x ← norm(x + attention(x, locations))
             x ← norm(x + W2·relu(W1·x))
    logits = dense(x), initialized to the log-frequencies of the words; −10⁹ for tokens that are never generated

Decoding caches keys and values, so that each word costs one time step. The unknown word is never generated, so it
is excluded from loss and metrics.
"""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from features.runtime.keras_settings import keras, ops
from schemas.table_config import PAD, UNKNOWN
from trainer.models.captioner import NEVER_GENERATED, Captioner, State, bad_words_mask
from trainer.models.configs import TransformerConfig

# Keys and values.
_Cache = tuple[Any, Any]

_MASKED_SCORE = -1e9
# With a kernel of zeros, no gradient would reach the layers below.
_LOGITS_KERNEL_STDDEV = 0.002

# === Layers ===


# keras.layers.MultiHeadAttention has equal outputs, but no cache. On the CPU, a training step of this layer takes
# 1.4 to 2.3 times as long with it, decoding 20 words 1.9 times (self-attention) and 12.6 times (image attention).
@keras.saving.register_keras_serializable("capt")
class CachedMultiHeadAttention(keras.layers.Layer):
    """Scaled dot-product attention with several heads, whose keys and values can be computed once and cached.

    Keys have no bias, because a bias would add the same number to all scores of a query.

    Args:
        units: Size of queries, keys, values and outputs, over all heads; a multiple of `num_heads`.
        num_heads: Number of heads.
        dropout: Dropout rate of the attention weights.

    Call arguments:
        queries: float [B, T, units].
        cache: Result of `compute_keys_values`, each float [B, S, units].
        mask: bool, broadcast to [B, heads, T, S]: which of the S positions each query attends to; None for all.

    Returns:
        The outputs float [B, T, units], and the attention weights float32 [B, heads, T, S] before dropout, which sum
        to 1 over S.
    """

    def __init__(self, units: int, num_heads: int, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.num_heads = num_heads
        self.query_layer = keras.layers.Dense(units, name="query")
        self.key_layer = keras.layers.Dense(units, use_bias=False, name="key")
        self.value_layer = keras.layers.Dense(units, name="value")
        self.weight_dropout = keras.layers.Dropout(dropout, name="weight_dropout")
        self.output_layer = keras.layers.Dense(units, name="output")

    def build(self, queries_shape: Any, values_shape: Any) -> None:
        self.query_layer.build(queries_shape)
        self.key_layer.build(values_shape)
        self.value_layer.build(values_shape)
        self.output_layer.build(queries_shape)

    def compute_keys_values(self, values: Any) -> _Cache:
        """Returns keys and values [B, S, units] of the inputs [B, S, C]."""
        return self.key_layer(values), self.value_layer(values)

    def call(self, queries: Any, cache: _Cache, mask: Any = None, training: bool = False) -> tuple[Any, Any]:
        query, key, value = (self._split_heads(part) for part in (self.query_layer(queries), *cache))
        scores = ops.matmul(query / (self.units // self.num_heads) ** 0.5, ops.transpose(key, (0, 1, 3, 2)))
        scores = ops.cast(scores, "float32")
        weights = ops.softmax(scores if mask is None else ops.where(mask, scores, _MASKED_SCORE), axis=-1)
        dropped = ops.cast(self.weight_dropout(weights, training=training), self.compute_dtype)
        context = ops.transpose(ops.matmul(dropped, value), (0, 2, 1, 3))
        return self.output_layer(ops.reshape(context, ops.shape(queries))), weights

    def _split_heads(self, values: Any) -> Any:
        """Reshapes [B, S, units] to [B, heads, S, units / heads]."""
        shape = (-1, ops.shape(values)[1], self.num_heads, self.units // self.num_heads)
        return ops.transpose(ops.reshape(values, shape), (0, 2, 1, 3))


@keras.saving.register_keras_serializable("capt")
class DecoderLayer(keras.layers.Layer):
    """One decoder layer: self-attention, attention over locations, and a feed-forward layer of twice the width.

    Call arguments:
        words: float [B, T, units].
        word_cache: Keys and values of the words, each float [B, S, units].
        image_cache: Keys and values of the locations, each float [B, locations, units].
        mask: bool. Which of the S words each word attends to.

    Returns:
        The outputs float [B, T, units], and the attention weights over locations float32 [B, heads, T, locations].
    """

    def __init__(self, units: int, num_heads: int, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.self_attention = CachedMultiHeadAttention(units, num_heads, dropout, name="self_attention")
        self.self_norm = keras.layers.LayerNormalization(name="self_norm")
        self.image_attention = CachedMultiHeadAttention(units, num_heads, dropout, name="image_attention")
        self.image_norm = keras.layers.LayerNormalization(name="image_norm")
        self.wide_layer = keras.layers.Dense(2 * units, activation="relu", name="wide")
        self.narrow_layer = keras.layers.Dense(units, name="narrow")
        self.dense_dropout = keras.layers.Dropout(dropout, name="dense_dropout")
        self.dense_norm = keras.layers.LayerNormalization(name="dense_norm")

    def build(self, words_shape: Any, features_shape: Any) -> None:
        self.self_attention.build(words_shape, words_shape)
        self.image_attention.build(words_shape, features_shape)
        for layer in (self.self_norm, self.image_norm, self.wide_layer, self.dense_norm):
            layer.build(words_shape)
        self.narrow_layer.build((*words_shape[:-1], 2 * self.units))

    def call(
        self, words: Any, word_cache: _Cache, image_cache: _Cache, mask: Any, training: bool = False
    ) -> tuple[Any, Any]:
        added, _ = self.self_attention(words, word_cache, mask, training=training)
        words = self.self_norm(words + added)
        added, weights = self.image_attention(words, image_cache, training=training)
        words = self.image_norm(words + added)
        added = self.dense_dropout(self.narrow_layer(self.wide_layer(words)), training=training)
        return self.dense_norm(words + added), weights


# === Model ===


@keras.saving.register_keras_serializable("capt")
class Transformer(Captioner):
    """Captioner that is a transformer decoder over locations."""

    config_class = TransformerConfig
    config: TransformerConfig
    ignored_ids: ClassVar[tuple[int, ...]] = (PAD, UNKNOWN)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.config
        # The start token has a position, too.
        self.num_positions = config.max_length + 1
        self.embedding_layer = keras.layers.Embedding(self.vocabulary, config.units, name="embedding")
        self.position_layer = keras.layers.Embedding(self.num_positions, config.units, name="position")
        sizes, layers = (config.units, config.num_heads, config.dropout), range(config.num_layers)
        self.decoder_layers = [DecoderLayer(*sizes, name=f"decoder_{i}") for i in layers]
        self.image_dropout = keras.layers.Dropout(config.image_dropout, name="image_dropout")
        initializer = keras.initializers.RandomNormal(stddev=_LOGITS_KERNEL_STDDEV)
        self.logits_layer = keras.layers.Dense(
            self.vocabulary, kernel_initializer=initializer, dtype="float32", name="logits"
        )

    def build(self, input_shape: dict[str, Any]) -> None:
        features = tuple(input_shape["features"])
        words = (None, None, self.config.units)
        self.feature_normalization.build(features)
        self.embedding_layer.build(tuple(input_shape["tokens"]))
        self.position_layer.build((None, None))
        for layer in self.decoder_layers:
            layer.build(words, features)
        self.logits_layer.build(words)

    def adapt(self, features: NDArray[Any], counts: NDArray[np.int64]) -> None:
        super().adapt(features, counts)
        # Words without an occurrence count as one occurrence.
        smoothed = np.maximum(counts, 1).astype(np.float64)
        smoothed[list(NEVER_GENERATED)] = 0
        frequencies = smoothed / smoothed.sum()
        self.logits_layer.bias.assign(np.log(frequencies, where=frequencies > 0, out=np.zeros_like(frequencies)))

    def call(self, inputs: dict[str, Any], training: bool = False) -> Any:
        words, _ = self._decode(inputs, training)
        return self._compute_logits(words)

    def compute_attention(self, features: Any, tokens: Any) -> Any:
        _, attention = self._decode({"features": ops.convert_to_tensor(features), "tokens": tokens})
        return ops.stack(attention, axis=1)

    def _decode(self, inputs: dict[str, Any], training: bool = False) -> tuple[Any, list[Any]]:
        """Returns the outputs [B, T, units] of the last layer, and each layer's attention over the locations."""
        cache = self._cache_image(inputs["features"], training)
        if "image" in inputs:
            cache = {name: ops.take(tensor, inputs["image"], axis=0) for name, tensor in cache.items()}
        position = ops.arange(ops.shape(inputs["tokens"])[1])
        mask = ops.expand_dims(position, 0) <= ops.expand_dims(position, 1)
        words, attention = self._embed(inputs["tokens"], position), []
        for i, layer in enumerate(self.decoder_layers):
            word_cache = layer.self_attention.compute_keys_values(words)
            words, weights = layer(words, word_cache, _get_cache(cache, "image", i), mask, training=training)
            attention.append(weights)
        return words, attention

    def init_state(self, features: Any, training: bool = False) -> State:
        batch, config = ops.shape(features)[0], self.config
        empty = ops.zeros((batch, self.num_positions, config.units), dtype=self.compute_dtype)
        words = {f"word_{part}_{i}": empty for i in range(config.num_layers) for part in ("keys", "values")}
        return {**self._cache_image(features), **words, "position": ops.zeros((batch,), dtype="int32")}

    def step(self, token: Any, state: State) -> tuple[Any, State, Any]:
        position = ops.expand_dims(state["position"], 1)
        positions = ops.expand_dims(ops.arange(self.num_positions, dtype="int32"), 0)
        is_current = ops.expand_dims(ops.equal(positions, position), -1)
        mask = ops.reshape(positions <= position, (-1, 1, 1, self.num_positions))
        word = self._embed(ops.expand_dims(token, 1), position)
        after: State = {"position": state["position"] + 1}
        attention = []
        for i, layer in enumerate(self.decoder_layers):
            new_keys, new_values = layer.self_attention.compute_keys_values(word)
            keys, values = _get_cache(state, "word", i)
            word_cache = (ops.where(is_current, new_keys, keys), ops.where(is_current, new_values, values))
            after[f"word_keys_{i}"], after[f"word_values_{i}"] = word_cache
            word, weights = layer(word, word_cache, _get_cache(state, "image", i), mask)
            attention.append(ops.mean(weights[:, :, 0], axis=1))
        logits = ops.squeeze(self._compute_logits(word), 1)
        return logits, {**state, **after}, sum(attention) / len(attention)

    def _cache_image(self, features: Any, training: bool = False) -> State:
        """Computes keys and values of the locations for each layer, once per image."""
        features = self.image_dropout(self.feature_normalization(features), training=training)
        cache = {}
        for i, layer in enumerate(self.decoder_layers):
            keys, values = layer.image_attention.compute_keys_values(features)
            cache[f"image_keys_{i}"], cache[f"image_values_{i}"] = keys, values
        return cache

    def _embed(self, tokens: Any, position: Any) -> Any:
        # The padding of a batch may exceed the last position.
        return self.embedding_layer(tokens) + self.position_layer(ops.minimum(position, self.config.max_length))

    def _compute_logits(self, words: Any) -> Any:
        return self.logits_layer(words) + bad_words_mask(self.vocabulary)


def _get_cache(state: State, source: str, layer: int) -> _Cache:
    return state[f"{source}_keys_{layer}"], state[f"{source}_values_{layer}"]
