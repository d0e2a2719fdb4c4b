"""NIC: the image is the first thing that an LSTM reads, and it never sees it again.

Show and Tell (Vinyals et al., 2015, arXiv:1411.4555), with the sizes and training of the code its authors published:

    x_{−1} = W·image                  h, c = LSTM(x_{−1}, 0)         once an image
    x_t = embedded word t             h, c = LSTM(x_t, (h, c))
    logits = dense(h)                 dropout on all that enters and leaves the LSTM
"""

from typing import Any

from features.runtime.keras_settings import keras, ops
from trainer.models.captioner import State
from trainer.models.recurrent_captioner import RecurrentCaptioner
from trainer.models.recurrent_cells import uniform

# === Model ===


@keras.saving.register_keras_serializable("capt")
class Nic(RecurrentCaptioner):
    """Captioner that reads the image as if it were the word before the start.

    Args:
        vocabulary: int. Number of word ids.
        rnn_cell: str. `lstm` as in the paper, `gru` or `rnn`.
        embedding_dim: int. Size of a word's vector, and of the image's.
        units: int. Size of the state.
        dropout: float. Share of word vectors' and of the LSTM's outputs' components that training leaves out, 0 to 1.
        recurrent_weight_dropout: float. As in `trainer.models.recurrent_cells.RecurrentLayer`.
        image_dropout: float. Share of the components of the image's vector, W·image, that training leaves out, 0 to 1.
        forget_bias: float. As in `trainer.models.recurrent_cells.RecurrentLayer`.
        init_scale: float or None. Weights are drawn evenly from −init_scale to init_scale; None for Keras' defaults.

    Example:
        >>> model = Nic(vocabulary=5000)
        >>> logits = model({"features": np.zeros((2, 2048)), "tokens": np.ones((2, 12), "int32")})
        >>> logits.shape
        (2, 12, 5000)
    """

    def __init__(
        self,
        vocabulary: int,
        rnn_cell: str = "lstm",
        embedding_dim: int = 512,
        units: int = 512,
        dropout: float = 0.3,
        recurrent_weight_dropout: float = 0.0,
        image_dropout: float = 0.3,
        forget_bias: float = 1.0,
        init_scale: float | None = 0.08,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            vocabulary,
            rnn_cell,
            embedding_dim,
            units,
            dropout,
            init_scale,
            forget_bias,
            recurrent_weight_dropout=recurrent_weight_dropout,
            **kwargs,
        )
        self.init_scale = init_scale
        self.image_dropout = image_dropout
        self.image_layer = keras.layers.Dense(
            embedding_dim, use_bias=False, kernel_initializer=uniform(init_scale), name="image"
        )
        self.image_dropout_layer = keras.layers.Dropout(image_dropout, name="image_dropout")
        self.state_dropout = keras.layers.Dropout(dropout, name="state_dropout")
        self.logits_layer = keras.layers.Dense(
            vocabulary, kernel_initializer=uniform(init_scale), dtype="float32", name="logits"
        )

    def build(self, input_shape: dict[str, Any]) -> None:
        self.build_words(input_shape, reads=self.embedding_dim)
        self.image_layer.build(tuple(input_shape["features"]))
        self.logits_layer.build((None, self.units))

    def begin(self, features: Any, training: bool = False) -> State:
        image = self.image_dropout_layer(self.image_layer(self.feature_scale(features)), training=training)
        return self.recurrence.step(image, self.recurrence.zeros(ops.shape(image)[0]))

    def say(self, hidden: Any, read: Any, state: State, training: bool = False) -> Any:
        return self.logits_layer(self.state_dropout(hidden, training=training))

    # === Config ===

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "image_dropout": self.image_dropout,
            "forget_bias": self.forget_bias,
            "init_scale": self.init_scale,
        }
