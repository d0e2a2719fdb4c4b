"""Additive attention: how much each of an image's places matters to a decoder's state."""

from typing import Any

from features.runtime.keras_settings import keras, ops

# === Layers ===


@keras.saving.register_keras_serializable("capt")
class AdditiveAttention(keras.layers.Layer):
    """Attention with the score v·tanh(W1·f + W2·h) of Bahdanau et al. (2015, arXiv:1409.0473).

    Args:
        units: int. Size of the space in which keys and query are added.

    Call arguments:
        query: float [B, Q].
        keys: float [B, places, units], from `keys`.

    Returns:
        The weights float [B, places], which sum to 1.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.key_layer = keras.layers.Dense(units, use_bias=False, name="key")
        self.query_layer = keras.layers.Dense(units, name="query")
        self.score_layer = keras.layers.Dense(1, use_bias=False, name="score")

    def build(self, query_shape: Any, values_shape: Any) -> None:
        self.key_layer.build(values_shape)
        self.query_layer.build(query_shape)
        self.score_layer.build((*values_shape[:-1], self.units))

    def keys(self, values: Any) -> Any:
        """W1·f, the part of the score that does not depend on the query: [B, places, C] → [B, places, units]."""
        return self.key_layer(values)

    def call(self, query: Any, keys: Any) -> Any:
        mixed = ops.tanh(keys + ops.expand_dims(self.query_layer(query), 1))
        return ops.softmax(ops.squeeze(self.score_layer(mixed), -1), axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


def weighted_sum(weights: Any, values: Any) -> Any:
    """The values float [B, places, C] by their weights float [B, places], added: float [B, C]."""
    return ops.squeeze(ops.matmul(ops.expand_dims(weights, 1), values), 1)
