"""Init-inject: the image is the recurrence's first state, and the words do the rest.

Where to put the Image in an Image Caption Generator (Tanti et al., 2018, arXiv:1703.09137, "init-inject"), with
bottlenecks around a small LSTM as the exercise of the course Introduction to Deep Learning (HSE, 2017) has them:

    h_0 = c_0 = elu(W2·elu(W1·image))             once an image
    h_t, c_t = LSTM(embedded word t, (h, c))
    logits = dense(elu(W3·h_t))
"""

from typing import Any

from features.runtime.keras_settings import keras
from trainer.models.captioner import State
from trainer.models.recurrent_captioner import RecurrentCaptioner

# === Model ===


@keras.saving.register_keras_serializable("capt")
class InitInject(RecurrentCaptioner):
    """Captioner whose recurrence begins with the image.

    Args:
        vocabulary: int. Number of word ids.
        rnn_cell: str. `lstm`, `gru` or `rnn`.
        embedding_dim: int. Size of a word's vector.
        units: int. Size of the state.
        image_bottleneck: int. Size to which the image is reduced before it becomes a state.
        logit_bottleneck: int. Size of the layer before the logits.
        dropout: float. Share of word vectors' and hidden states' components that training leaves out, 0 to 1.
        recurrent_weight_dropout: float. As in `trainer.models.recurrent_cells.RecurrentLayer`.
        forget_bias: float. As in `trainer.models.recurrent_cells.RecurrentLayer`.
        image_dropout: float. Share of the image's components that training leaves out, 0 to 1.

    Example:
        >>> model = InitInject(vocabulary=5000)
        >>> logits = model({"features": np.zeros((2, 2048)), "tokens": np.ones((2, 12), "int32")})
        >>> logits.shape
        (2, 12, 5000)
    """

    def __init__(
        self,
        vocabulary: int,
        rnn_cell: str = "lstm",
        embedding_dim: int = 100,
        units: int = 300,
        image_bottleneck: int = 120,
        logit_bottleneck: int = 120,
        dropout: float = 0.0,
        recurrent_weight_dropout: float = 0.0,
        forget_bias: float = 1.0,
        image_dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            vocabulary,
            rnn_cell,
            embedding_dim,
            units,
            dropout,
            forget_bias=forget_bias,
            recurrent_weight_dropout=recurrent_weight_dropout,
            **kwargs,
        )
        self.image_bottleneck = image_bottleneck
        self.logit_bottleneck = logit_bottleneck
        self.image_dropout = image_dropout
        self.image_dropout_layer = keras.layers.Dropout(image_dropout, name="image_dropout")
        self.image_layer = keras.layers.Dense(image_bottleneck, activation="elu", name="image")
        self.first_state_layer = keras.layers.Dense(units, activation="elu", name="first_state")
        self.state_dropout = keras.layers.Dropout(dropout, name="state_dropout")
        self.output_layer = keras.layers.Dense(logit_bottleneck, activation="elu", name="output")
        self.logits_layer = keras.layers.Dense(vocabulary, dtype="float32", name="logits")

    def build(self, input_shape: dict[str, Any]) -> None:
        self.build_words(input_shape, reads=self.embedding_dim)
        self.image_layer.build(tuple(input_shape["features"]))
        self.first_state_layer.build((None, self.image_bottleneck))
        self.output_layer.build((None, self.units))
        self.logits_layer.build((None, self.logit_bottleneck))

    def begin(self, features: Any, training: bool = False) -> State:
        image = self.image_dropout_layer(self.feature_scale(features), training=training)
        first = self.first_state_layer(self.image_layer(image))
        return dict.fromkeys(self.recurrence.state_names, first)

    def say(self, hidden: Any, read: Any, state: State, training: bool = False) -> Any:
        return self.logits_layer(self.output_layer(self.state_dropout(hidden, training=training)))

    # === Config ===

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "image_bottleneck": self.image_bottleneck,
            "logit_bottleneck": self.logit_bottleneck,
            "forget_bias": self.forget_bias,
            "image_dropout": self.image_dropout,
        }
