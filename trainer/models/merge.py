"""Merge: the recurrence reads words alone; image and sentence meet after it.

Where to put the Image in an Image Caption Generator (Tanti et al., 2018, arXiv:1703.09137, "merge"), joined by
addition and followed by a hidden layer, as the model is mostly taught:

    v = relu(W1·dropout(image))                   once an image
    h_t, c_t = LSTM(dropout(embedded word t), (h, c))
    logits = dense(relu(W2·(h_t + v)))
"""

from typing import Any

from features.runtime.keras_settings import keras, ops
from trainer.models.captioner import State
from trainer.models.recurrent_captioner import RecurrentCaptioner

# === Model ===


@keras.saving.register_keras_serializable("capt")
class Merge(RecurrentCaptioner):
    """Captioner whose recurrence is a language model, to which the image is added afterwards.

    Args:
        vocabulary: int. Number of word ids.
        rnn_cell: str. `lstm`, `gru` or `rnn`.
        embedding_dim: int. Size of a word's vector.
        units: int. Size of the state, of the image's vector, and of the layer before the logits.
        dropout: float. Share of word vectors' components that training leaves out, 0 to 1.
        recurrent_weight_dropout: float. As in `trainer.models.recurrent_cells.RecurrentLayer`.
        image_dropout: float. Share of the image's components that training leaves out, 0 to 1.
        merge_dropout: float. Share of what the hidden layer reads, h_t + v, that training leaves out, 0 to 1.

    Example:
        >>> model = Merge(vocabulary=5000)
        >>> logits = model({"features": np.zeros((2, 4096)), "tokens": np.ones((2, 12), "int32")})
        >>> logits.shape
        (2, 12, 5000)
    """

    def __init__(
        self,
        vocabulary: int,
        rnn_cell: str = "lstm",
        embedding_dim: int = 200,
        units: int = 256,
        dropout: float = 0.5,
        recurrent_weight_dropout: float = 0.0,
        image_dropout: float = 0.5,
        merge_dropout: float = 0.0,
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
        self.image_dropout = image_dropout
        self.merge_dropout = merge_dropout
        self.image_dropout_layer = keras.layers.Dropout(image_dropout, name="image_dropout")
        self.joint_dropout_layer = keras.layers.Dropout(merge_dropout, name="merge_dropout")
        self.image_layer = keras.layers.Dense(units, activation="relu", name="image")
        self.output_layer = keras.layers.Dense(units, activation="relu", name="output")
        self.logits_layer = keras.layers.Dense(vocabulary, dtype="float32", name="logits")

    def build(self, input_shape: dict[str, Any]) -> None:
        self.build_words(input_shape, reads=self.embedding_dim)
        self.image_layer.build(tuple(input_shape["features"]))
        self.output_layer.build((None, self.units))
        self.logits_layer.build((None, self.units))

    def begin(self, features: Any, training: bool = False) -> State:
        image = self.image_layer(self.image_dropout_layer(self.feature_scale(features), training=training))
        return {"image": image, **self.recurrence.zeros(ops.shape(image)[0])}

    def say(self, hidden: Any, read: Any, state: State, training: bool = False) -> Any:
        joint = self.joint_dropout_layer(hidden + ops.expand_dims(state["image"], 1), training=training)
        return self.logits_layer(self.output_layer(joint))

    # === Config ===

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "image_dropout": self.image_dropout,
            "merge_dropout": self.merge_dropout,
        }
