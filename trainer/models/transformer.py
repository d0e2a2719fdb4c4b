"""Transformer: every word looks at all words before it and at all places of the image, without a recurrence.

The decoder of Attention Is All You Need (Vaswani et al., 2017, arXiv:1706.03762), reading an image's places:

    x = embedded words + learned positions
    layer:   x ← norm(x + self-attention(x))                 to this word and those before
             x ← norm(x + attention(x, places))
             x ← norm(x + W2·relu(W1·x))
    logits = dense(x), which begins as the logarithms of the words' counts; what no caption is made of has −10⁹

Decoding keeps every word's keys and values, so that a word costs one word's work. A target that may not be said, the
unknown word, counts in neither loss nor metrics.
"""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from features.runtime.keras_settings import keras, ops
from schemas.table_config import PAD, UNKNOWN
from trainer.decoding.logits_processors import bad_words_mask
from trainer.models.captioner import Captioner, State
from trainer.models.losses import NEVER_GENERATED

_NOT_SEEN = -1e9
# The first logits are the unigrams' but for this: a kernel of zeros would let no gradient into the layers below.
_FIRST_KERNEL = 0.002

# === Layers ===


@keras.saving.register_keras_serializable("capt")
class MultiHeadAttention(keras.layers.Layer):
    """Scaled dot-product attention in several heads, whose keys and values can be made beforehand and kept.

    Keys have no bias: it would add the same to all scores of a query.

    Args:
        units: int. Size of queries, keys, values and output, all heads together.
        num_heads: int. Heads; they divide `units`.
        dropout: float. Share of the weights that training leaves out, 0 to 1.

    Call arguments:
        queries: float [B, T, units].
        memory: pair of float [B, S, units], from `remember`.
        seen: bool, broadcast to [B, heads, T, S], or None. Which of S each query sees; None for all.
        training: bool. Whether dropout is on.

    Returns:
        float [B, T, units], and the weights float32 [B, heads, T, S], before dropout, which sum to 1 over S.
    """

    def __init__(self, units: int, num_heads: int, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.num_heads = num_heads
        self.dropout = dropout
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

    def remember(self, values: Any) -> tuple[Any, Any]:
        """The keys and values of what can be looked at: [B, S, C] → two of [B, S, units]."""
        return self.key_layer(values), self.value_layer(values)

    def call(self, queries: Any, memory: tuple[Any, Any], seen: Any = None, training: bool = False) -> tuple[Any, Any]:
        query, key, value = (self._by_head(part) for part in (self.query_layer(queries), *memory))
        scores = ops.matmul(query / (self.units // self.num_heads) ** 0.5, ops.transpose(key, (0, 1, 3, 2)))
        scores = ops.cast(scores, "float32")
        weights = ops.softmax(scores if seen is None else ops.where(seen, scores, _NOT_SEEN), axis=-1)
        kept = ops.cast(self.weight_dropout(weights, training=training), self.compute_dtype)
        context = ops.transpose(ops.matmul(kept, value), (0, 2, 1, 3))
        return self.output_layer(ops.reshape(context, ops.shape(queries))), weights

    def _by_head(self, values: Any) -> Any:
        """[B, S, units] → [B, heads, S, units of a head]."""
        shape = (-1, ops.shape(values)[1], self.num_heads, self.units // self.num_heads)
        return ops.transpose(ops.reshape(values, shape), (0, 2, 1, 3))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units, "num_heads": self.num_heads, "dropout": self.dropout}


@keras.saving.register_keras_serializable("capt")
class DecoderLayer(keras.layers.Layer):
    """One layer of the decoder: self-attention, attention over places, and a dense part of twice the width.

    Args:
        units: int. Size of a word's vector.
        num_heads: int. Heads of both attentions.
        dropout: float. Share of attention weights, and of the dense part's output, that training leaves out.

    Call arguments:
        words: float [B, T, units].
        before: pair of float [B, S, units]. Keys and values of the words that can be looked at.
        image: pair of float [B, places, units]. Keys and values of the places.
        seen: bool. Which of S each word sees.
        training: bool. Whether dropout is on.

    Returns:
        float [B, T, units], and the weights over places float32 [B, heads, T, places].
    """

    def __init__(self, units: int, num_heads: int, dropout: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.num_heads = num_heads
        self.dropout = dropout
        self.self_attention = MultiHeadAttention(units, num_heads, dropout, name="self_attention")
        self.self_norm = keras.layers.LayerNormalization(name="self_norm")
        self.image_attention = MultiHeadAttention(units, num_heads, dropout, name="image_attention")
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
        self, words: Any, before: tuple[Any, Any], image: tuple[Any, Any], seen: Any, training: bool = False
    ) -> tuple[Any, Any]:
        added, _ = self.self_attention(words, before, seen, training=training)
        words = self.self_norm(words + added)
        added, weights = self.image_attention(words, image, training=training)
        words = self.image_norm(words + added)
        added = self.dense_dropout(self.narrow_layer(self.wide_layer(words)), training=training)
        return self.dense_norm(words + added), weights

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units, "num_heads": self.num_heads, "dropout": self.dropout}


# === Model ===


@keras.saving.register_keras_serializable("capt")
class Transformer(Captioner):
    """Captioner that is a transformer's decoder over places.

    Args:
        vocabulary: int. Number of word ids.
        num_layers: int. Layers.
        units: int. Size of a word's vector.
        num_heads: int. Heads of each attention; they divide `units`.
        dropout: float. Share of attention weights, and of the dense parts' outputs, that training leaves out, 0 to 1.
        max_length: int. Words at most in a caption.

    Example:
        >>> model = Transformer(vocabulary=5000)
        >>> logits = model({"features": np.zeros((2, 64, 2048)), "tokens": np.ones((2, 12), "int32")})
        >>> logits.shape
        (2, 12, 5000)
    """

    left_out: ClassVar[tuple[int, ...]] = (PAD, UNKNOWN)

    def __init__(
        self,
        vocabulary: int,
        num_layers: int = 2,
        units: int = 256,
        num_heads: int = 2,
        dropout: float = 0.5,
        max_length: int = 50,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.vocabulary = vocabulary
        self.num_layers = num_layers
        self.units = units
        self.num_heads = num_heads
        self.dropout = dropout
        self.max_length = max_length
        self.max_caption_length = max_length
        self.embedding_layer = keras.layers.Embedding(vocabulary, units, name="embedding")
        # The start token takes a position as well.
        self.position_layer = keras.layers.Embedding(max_length + 1, units, name="position")
        self.decoder_layers = [DecoderLayer(units, num_heads, dropout, name=f"decoder_{i}") for i in range(num_layers)]
        self.logits_layer = keras.layers.Dense(
            vocabulary,
            kernel_initializer=keras.initializers.RandomNormal(stddev=_FIRST_KERNEL),
            dtype="float32",
            name="logits",
        )

    def build(self, input_shape: dict[str, Any]) -> None:
        features = tuple(input_shape["features"])
        words = (None, None, self.units)
        self.feature_scale.build(features)
        self.embedding_layer.build(tuple(input_shape["tokens"]))
        self.position_layer.build((None, None))
        for layer in self.decoder_layers:
            layer.build(words, features)
        self.logits_layer.build(words)

    def adapt(self, features: NDArray[Any], counts: NDArray[np.int64]) -> None:
        super().adapt(features, counts)
        # A word that the captions lack is as likely as one that they have once.
        said = np.maximum(counts, 1).astype(np.float64)
        said[list(NEVER_GENERATED)] = 0
        self.logits_layer.bias.assign(np.log(said / said.sum(), where=said > 0, out=np.zeros_like(said)))

    def call(self, inputs: dict[str, Any], training: bool = False) -> Any:
        memory = self._remember(inputs["features"])
        if "image" in inputs:
            memory = {name: ops.take(tensor, inputs["image"], axis=0) for name, tensor in memory.items()}
        position = ops.arange(ops.shape(inputs["tokens"])[1])
        seen = ops.expand_dims(position, 0) <= ops.expand_dims(position, 1)
        words = self._embed(inputs["tokens"], position)
        for i, layer in enumerate(self.decoder_layers):
            before = layer.self_attention.remember(words)
            words, _ = layer(words, before, _pair(memory, "image", i), seen, training=training)
        return self._say(words)

    def begin(self, features: Any) -> State:
        memory = self._remember(features)
        batch = ops.shape(features)[0]
        nothing = ops.zeros((batch, self.max_length + 1, self.units), dtype=self.compute_dtype)
        words = {f"word_{part}_{i}": nothing for i in range(self.num_layers) for part in ("keys", "values")}
        return {**memory, **words, "said": ops.zeros((batch,), dtype="int32")}

    def step(self, token: Any, state: State) -> tuple[Any, State, Any]:
        said = ops.expand_dims(state["said"], 1)
        places = ops.expand_dims(ops.arange(self.max_length + 1, dtype="int32"), 0)
        here = ops.expand_dims(ops.equal(places, said), -1)
        seen = ops.reshape(places <= said, (-1, 1, 1, self.max_length + 1))
        word = self._embed(ops.expand_dims(token, 1), said)
        after, looks = {"said": state["said"] + 1}, []
        for i, layer in enumerate(self.decoder_layers):
            now = layer.self_attention.remember(word)
            before = [ops.where(here, new, kept) for new, kept in zip(now, _pair(state, "word", i), strict=True)]
            after[f"word_keys_{i}"], after[f"word_values_{i}"] = before
            word, weights = layer(word, (before[0], before[1]), _pair(state, "image", i), seen)
            looks.append(ops.mean(weights[:, :, 0], axis=1))
        return ops.squeeze(self._say(word), 1), {**state, **after}, sum(looks) / self.num_layers

    def _remember(self, features: Any) -> State:
        """Each layer's keys and values of the places, once an image."""
        features = self.feature_scale(features)
        memory = {}
        for i, layer in enumerate(self.decoder_layers):
            memory[f"image_keys_{i}"], memory[f"image_values_{i}"] = layer.image_attention.remember(features)
        return memory

    def _embed(self, tokens: Any, position: Any) -> Any:
        # Batches may be padded beyond the last position that a caption can have.
        return self.embedding_layer(tokens) + self.position_layer(ops.minimum(position, self.max_length))

    def _say(self, words: Any) -> Any:
        return self.logits_layer(words) + bad_words_mask(self.vocabulary)

    # === Config ===

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "vocabulary": self.vocabulary,
            "num_layers": self.num_layers,
            "units": self.units,
            "num_heads": self.num_heads,
            "dropout": self.dropout,
            "max_length": self.max_length,
        }


def _pair(state: State, of: str, layer: int) -> tuple[Any, Any]:
    return state[f"{of}_keys_{layer}"], state[f"{of}_values_{layer}"]
