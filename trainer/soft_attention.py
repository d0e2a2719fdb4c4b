"""Soft attention: at every word the decoder looks at a weighted mean of the image's places.

Show, Attend and Tell (Xu et al., 2015) with the additive score of Bahdanau et al. (2015) and a GRU (Cho et al., 2014):

    features → dense relu → values f            keys k = W1·f, once per image
    score = v·tanh(k + W2·h),  α = softmax(score),  context = Σ α·f
    h = GRU([context, embedded word], h)        carried from word to word
    logits = dense(dense(h))                    for all words at once in training
"""

from typing import Any

import keras
from keras import ops

from trainer.captioner import Captioner, State

# === Layers ===


@keras.saving.register_keras_serializable("capt")
class AdditiveAttention(keras.layers.Layer):
    """Attention with the score v·tanh(W1·f + W2·h) of Bahdanau et al. (2015).

    Args:
        units: int. Size of the space in which keys and query are added.

    Call arguments:
        query: float [B, Q].
        keys: float [B, places, units], from `keys`.
        values: float [B, places, C].

    Returns:
        The context float [B, C] and the weights float [B, places], which sum to 1.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.key_layer = keras.layers.Dense(units, use_bias=False, name="key")
        self.query_layer = keras.layers.Dense(units, name="query")
        self.score_layer = keras.layers.Dense(1, use_bias=False, name="score")

    def build(self, query_shape: Any, keys_shape: Any, values_shape: Any) -> None:
        self.key_layer.build(values_shape)
        self.query_layer.build(query_shape)
        self.score_layer.build((*values_shape[:-1], self.units))

    def keys(self, values: Any) -> Any:
        """W1·f, the part of the score that does not depend on the query: [B, places, C] → [B, places, units]."""
        return self.key_layer(values)

    def call(self, query: Any, keys: Any, values: Any) -> tuple[Any, Any]:
        mixed = ops.tanh(keys + ops.expand_dims(self.query_layer(query), 1))
        weights = ops.softmax(ops.squeeze(self.score_layer(mixed), -1), axis=-1)
        context = ops.squeeze(ops.matmul(ops.expand_dims(weights, 1), values), 1)
        return context, weights

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


# === Model ===


@keras.saving.register_keras_serializable("capt")
class SoftAttention(Captioner):
    """Captioner with soft attention over places.

    Args:
        vocabulary: int. Number of word ids.
        embedding: int. Size of a word's vector.
        units: int. Size of the GRU's state.
        attention: int. Size of the space in which the attention's score is taken.
        projection: int. Size to which each place's features are reduced.
        output: int. Size of the layer before the logits.
        dropout: float. Share of word vectors' and GRU outputs' components that training leaves out, 0 to 1. Both are
            drawn outside the time loop, for all words at once.

    Example:
        >>> model = SoftAttention(vocabulary=5000)
        >>> logits = model({"features": np.zeros((2, 64, 2048)), "tokens": np.ones((2, 12), "int32")})
        >>> logits.shape
        (2, 12, 5000)
    """

    def __init__(
        self,
        vocabulary: int,
        embedding: int = 256,
        units: int = 512,
        attention: int = 512,
        projection: int = 256,
        output: int = 512,
        dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.vocabulary = vocabulary
        self.embedding = embedding
        self.units = units
        self.attention = attention
        self.projection = projection
        self.output_units = output
        self.dropout = dropout
        self.projection_layer = keras.layers.Dense(projection, activation="relu", name="projection")
        self.embedding_layer = keras.layers.Embedding(vocabulary, embedding, name="embedding")
        self.attention_layer = AdditiveAttention(attention, name="attention")
        self.cell = keras.layers.GRUCell(units, name="cell")
        self.word_dropout = keras.layers.Dropout(dropout, name="word_dropout")
        self.state_dropout = keras.layers.Dropout(dropout, name="state_dropout")
        self.output_layer = keras.layers.Dense(output, name="output")
        self.logits_layer = keras.layers.Dense(vocabulary, dtype="float32", name="logits")

    def build(self, input_shape: dict[str, Any]) -> None:
        features = tuple(input_shape["features"])
        values = (*features[:-1], self.projection)
        self.feature_scale.build(features)
        self.projection_layer.build(features)
        self.embedding_layer.build(tuple(input_shape["tokens"]))
        self.attention_layer.build((None, self.units), (*features[:-1], self.attention), values)
        self.cell.build((None, self.projection + self.embedding))
        self.output_layer.build((None, self.units))
        self.logits_layer.build((None, self.output_units))

    def call(self, inputs: dict[str, Any], training: bool = False) -> Any:
        memory = self._remember(inputs["features"])
        if "image" in inputs:
            memory = {name: ops.take(tensor, inputs["image"], axis=0) for name, tensor in memory.items()}
        words = self.word_dropout(self.embedding_layer(inputs["tokens"]), training=training)

        def advance(hidden: Any, word: Any) -> tuple[Any, Any]:
            hidden, _ = self._advance(hidden, word, memory)
            return hidden, hidden

        _, hidden = ops.scan(advance, self._zeros(words), ops.transpose(words, (1, 0, 2)))
        hidden = self.state_dropout(ops.transpose(hidden, (1, 0, 2)), training=training)
        return self.logits_layer(self.output_layer(hidden))

    def begin(self, features: Any) -> State:
        memory = self._remember(features)
        return {"hidden": self._zeros(memory["values"]), **memory}

    def step(self, token: Any, state: State) -> tuple[Any, State, Any]:
        hidden, weights = self._advance(state["hidden"], self.embedding_layer(token), state)
        return self.logits_layer(self.output_layer(hidden)), {**state, "hidden": hidden}, weights

    def _remember(self, features: Any) -> State:
        values = self.projection_layer(self.feature_scale(features))
        return {"values": values, "keys": self.attention_layer.keys(values)}

    def _advance(self, hidden: Any, word: Any, memory: State) -> tuple[Any, Any]:
        context, weights = self.attention_layer(hidden, memory["keys"], memory["values"])
        _, (hidden,) = self.cell(ops.concatenate([context, word], axis=-1), [hidden])
        return hidden, weights

    def _zeros(self, like: Any) -> Any:
        return ops.zeros((ops.shape(like)[0], self.units), dtype=self.compute_dtype)

    # === Config ===

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "vocabulary": self.vocabulary,
            "embedding": self.embedding,
            "units": self.units,
            "attention": self.attention,
            "projection": self.projection,
            "output": self.output_units,
            "dropout": self.dropout,
        }
