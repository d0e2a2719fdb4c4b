"""m-RNN: word, recurrence and image meet at every word in a multimodal layer.

Deep Captioning with Multimodal Recurrent Neural Networks (Mao et al., 2015, arXiv:1412.6632):

    w_t = dense(embedded word t)                            two embedding layers
    r_t = relu(U·r_{t−1} + w_t)                             the paper's own recurrence
    m_t = g(V_w·w_t + V_r·r_t + V_I·image)                  g(x) = 1.7159·tanh(2x/3); V_I·image once an image
    logits = dense(m_t)

The image is one vector. The paper takes AlexNet's seventh layer; of the extractors at hand `fc2` of VGG16 is nearest.

The authors later published code with a GRU for the recurrence, one embedding layer, and output weights tied to it
(logits = E·relu(dense(m_t)) + b); `rnn_cell`, `embedding_2` and `tied` give these.
"""

from typing import Any

from features.runtime.keras_settings import keras, ops
from trainer.models.captioner import State
from trainer.models.recurrent_captioner import RecurrentCaptioner

# === Layers ===


def scaled_tanh(values: Any) -> Any:
    """g(x) = 1.7159·tanh(2x/3), which maps ±1 to ±1 (LeCun et al., Efficient BackProp, 1998)."""
    return 1.7159 * ops.tanh(values * (2 / 3))


@keras.saving.register_keras_serializable("capt")
class TiedLogits(keras.layers.Layer):
    """Logits whose weights are the word vectors themselves, and a bias of their own.

    Call arguments:
        values: float [B, T, C].
        table: float [V, C]. The word vectors.
    """

    def build(self, values_shape: Any, table_shape: Any) -> None:
        self.bias = self.add_weight(shape=(table_shape[0],), initializer="zeros", name="bias")

    def call(self, values: Any, table: Any) -> Any:
        return ops.matmul(values, ops.transpose(table)) + self.bias


# === Model ===


@keras.saving.register_keras_serializable("capt")
class MRnn(RecurrentCaptioner):
    """Captioner with a multimodal layer.

    Args:
        vocabulary: int. Number of word ids.
        rnn_cell: str. `adding` as in the paper, `gru` as in the authors' code, `lstm` or `rnn`.
        embedding_dim: int. Size of the first embedding layer.
        embedding_dim_2: int or None. Size of the second; None for one embedding layer.
        units: int. Size of the recurrence's state; of `adding`, as many as what it reads.
        multimodal: int. Size of the multimodal layer.
        dropout: float. Share of the components of word vectors, recurrence and multimodal layer that training leaves
            out, 0 to 1.
        recurrent_weight_dropout: float. As in `trainer.models.recurrent_cells.RecurrentLayer`.
        image_dropout: float. Share of the image's components that training leaves out, 0 to 1.
        tie_word_embeddings: bool. Whether a word's output weights are its vector in the first embedding layer.

    Example:
        >>> model = MRnn(vocabulary=5000)
        >>> logits = model({"features": np.zeros((2, 4096)), "tokens": np.ones((2, 12), "int32")})
        >>> logits.shape
        (2, 12, 5000)
    """

    def __init__(
        self,
        vocabulary: int,
        rnn_cell: str = "adding",
        embedding_dim: int = 128,
        embedding_dim_2: int | None = 256,
        units: int = 256,
        multimodal: int = 512,
        dropout: float = 0.0,
        recurrent_weight_dropout: float = 0.0,
        image_dropout: float = 0.0,
        tie_word_embeddings: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            vocabulary,
            rnn_cell,
            embedding_dim,
            units,
            dropout,
            recurrent_weight_dropout=recurrent_weight_dropout,
            **kwargs,
        )
        self.embedding_dim_2 = embedding_dim_2
        self.multimodal = multimodal
        self.image_dropout = image_dropout
        self.tie_word_embeddings = tie_word_embeddings
        self.reads = embedding_dim_2 or embedding_dim
        self.second_layer = keras.layers.Dense(embedding_dim_2, name="embedding_2") if embedding_dim_2 else None
        self.from_word = keras.layers.Dense(multimodal, name="from_word")
        self.from_state = keras.layers.Dense(multimodal, use_bias=False, name="from_state")
        self.from_image = keras.layers.Dense(multimodal, use_bias=False, name="from_image")
        self.image_dropout_layer = keras.layers.Dropout(image_dropout, name="image_dropout")
        self.state_dropout = keras.layers.Dropout(dropout, name="state_dropout")
        self.multimodal_dropout = keras.layers.Dropout(dropout, name="multimodal_dropout")
        if tie_word_embeddings:
            self.output_layer = keras.layers.Dense(embedding_dim, activation="relu", name="output")
            self.logits_layer = TiedLogits(dtype="float32", name="logits")
        else:
            self.logits_layer = keras.layers.Dense(vocabulary, dtype="float32", name="logits")

    def build(self, input_shape: dict[str, Any]) -> None:
        self.build_words(input_shape, reads=self.reads)
        if self.second_layer:
            self.second_layer.build((None, self.embedding_dim))
        self.from_word.build((None, self.reads))
        self.from_state.build((None, self.units))
        self.from_image.build(tuple(input_shape["features"]))
        if self.tie_word_embeddings:
            self.output_layer.build((None, self.multimodal))
            self.logits_layer.build((None, self.embedding_dim), (self.vocabulary, self.embedding_dim))
        else:
            self.logits_layer.build((None, self.multimodal))

    def begin(self, features: Any, training: bool = False) -> State:
        image = self.from_image(self.image_dropout_layer(self.feature_scale(features), training=training))
        return {"image": image, **self.recurrence.zeros(ops.shape(image)[0])}

    def read(self, words: Any, state: State) -> Any:
        return self.second_layer(words) if self.second_layer else words

    def say(self, hidden: Any, read: Any, state: State, training: bool = False) -> Any:
        hidden = self.state_dropout(hidden, training=training)
        met = self.from_word(read) + self.from_state(hidden) + ops.expand_dims(state["image"], 1)
        met = self.multimodal_dropout(scaled_tanh(met), training=training)
        if not self.tie_word_embeddings:
            return self.logits_layer(met)
        return self.logits_layer(self.output_layer(met), ops.convert_to_tensor(self.embedding_layer.embeddings))

    # === Config ===

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "embedding_dim_2": self.embedding_dim_2,
            "multimodal": self.multimodal,
            "image_dropout": self.image_dropout,
            "tie_word_embeddings": self.tie_word_embeddings,
        }
