"""Defines m-RNN: word, recurrent state and image are added in a multimodal layer.

Deep Captioning with Multimodal Recurrent Neural Networks (Mao et al., 2015, arXiv:1412.6632):

    w_t = dense(embedded word t)                            two embedding layers
    r_t = relu(U·r_{t−1} + w_t)                             the paper's own cell
    m_t = g(V_w·w_t + V_r·r_t + V_I·image)                  g(x) = 1.7159·tanh(2x/3); V_I·image once per image
    logits = dense(m_t)

The paper's image vector is the seventh layer of AlexNet: `--extractor alexnet` (`fc7`), with the weights of a file. Of
the extractors with published weights, `fc2` of VGG16 is closest.
The authors' code, published later, has a GRU (`rnn_cell`), one embedding layer (`embedding_dim_2: null`), and
the embeddings as output weights, logits = E·relu(dense(m_t)) + b (`tie_word_embeddings`).
"""

from typing import Any

from features.runtime.keras_settings import keras, ops
from trainer.models.captioner import RecurrentCaptioner, State
from trainer.models.configs import MRnnConfig

# === Layers ===


def scaled_tanh(values: Any) -> Any:
    """Computes g(x) = 1.7159·tanh(2x/3), which maps ±1 to ±1 (LeCun et al., Efficient BackProp, 1998)."""
    return 1.7159 * ops.tanh(values * (2 / 3))


@keras.saving.register_keras_serializable("capt")
class TiedLogits(keras.layers.Layer):
    """Logits whose weights are the word embeddings, with a bias.

    Call arguments:
        values: float [B, T, C].
        embeddings: float [V, C].
    """

    def build(self, values_shape: Any, embeddings_shape: Any) -> None:
        self.bias = self.add_weight(shape=(embeddings_shape[0],), initializer="zeros", name="bias")

    def call(self, values: Any, embeddings: Any) -> Any:
        return ops.matmul(values, ops.transpose(embeddings)) + self.bias


# === Model ===


@keras.saving.register_keras_serializable("capt")
class MRnn(RecurrentCaptioner):
    """Captioner with a multimodal layer."""

    config_class = MRnnConfig
    config: MRnnConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.config
        second = config.embedding_dim_2
        self.second_layer: Any = keras.layers.Dense(second, name="embedding_2") if second else None
        self.from_word = keras.layers.Dense(config.multimodal, name="from_word")
        self.from_state = keras.layers.Dense(config.multimodal, use_bias=False, name="from_state")
        self.from_image = keras.layers.Dense(config.multimodal, use_bias=False, name="from_image")
        self.image_dropout = keras.layers.Dropout(config.image_dropout, name="image_dropout")
        self.state_dropout = keras.layers.Dropout(config.dropout, name="state_dropout")
        self.multimodal_dropout = keras.layers.Dropout(config.dropout, name="multimodal_dropout")
        self.logits_layer: Any
        if config.tie_word_embeddings:
            self.output_layer = keras.layers.Dense(config.embedding_dim, activation="relu", name="output")
            self.logits_layer = TiedLogits(dtype="float32", name="logits")
        else:
            self.logits_layer = keras.layers.Dense(self.vocabulary, dtype="float32", name="logits")

    def build(self, input_shape: dict[str, Any]) -> None:
        config = self.config
        input_dim = config.embedding_dim_2 or config.embedding_dim
        self.build_recurrence(input_shape, input_dim)
        if self.second_layer:
            self.second_layer.build((None, config.embedding_dim))
        self.from_word.build((None, input_dim))
        self.from_state.build((None, config.units))
        self.from_image.build(tuple(input_shape["features"]))
        if config.tie_word_embeddings:
            self.output_layer.build((None, config.multimodal))
            self.logits_layer.build((None, config.embedding_dim), (self.vocabulary, config.embedding_dim))
        else:
            self.logits_layer.build((None, config.multimodal))

    def init_state(self, features: Any, training: bool = False) -> State:
        image = self.from_image(self.image_dropout(self.feature_normalization(features), training=training))
        return {"image": image, **self.recurrence.init_state(ops.shape(image)[0])}

    def merge_inputs(self, words: Any, state: State) -> Any:
        return self.second_layer(words) if self.second_layer else words

    def compute_logits(self, hidden: Any, merged: Any, state: State, training: bool = False) -> Any:
        hidden = self.state_dropout(hidden, training=training)
        multimodal = self.from_word(merged) + self.from_state(hidden) + ops.expand_dims(state["image"], 1)
        multimodal = self.multimodal_dropout(scaled_tanh(multimodal), training=training)
        if not self.config.tie_word_embeddings:
            return self.logits_layer(multimodal)
        return self.logits_layer(self.output_layer(multimodal), ops.convert_to_tensor(self.embedding_layer.embeddings))
