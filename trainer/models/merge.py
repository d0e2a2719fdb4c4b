"""Defines Merge: the recurrent layer reads words only; the image is added to its output.

Where to put the Image in an Image Caption Generator (Tanti et al., 2018, arXiv:1703.09137, "merge"), with addition and
a hidden layer, as in most tutorials:

    v = relu(W1·dropout(image))                   once per image
    h_t, c_t = LSTM(dropout(embedded word t), (h, c))
    logits = dense(relu(W2·(h_t + v)))
"""

from typing import Any

from features.runtime.keras_settings import keras, ops
from trainer.models.captioner import RecurrentCaptioner, State
from trainer.models.configs import MergeConfig


@keras.saving.register_keras_serializable("capt")
class Merge(RecurrentCaptioner):
    """Captioner whose recurrent layer is a language model, to whose output the image is added."""

    config_class = MergeConfig
    config: MergeConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.config
        self.image_dropout = keras.layers.Dropout(config.image_dropout, name="image_dropout")
        self.merge_dropout = keras.layers.Dropout(config.merge_dropout, name="merge_dropout")
        self.image_layer = keras.layers.Dense(config.units, activation="relu", name="image")
        self.output_layer = keras.layers.Dense(config.units, activation="relu", name="output")
        self.logits_layer = keras.layers.Dense(self.vocabulary, dtype="float32", name="logits")

    def build(self, input_shape: dict[str, Any]) -> None:
        self.build_recurrence(input_shape, self.config.embedding_dim)
        self.image_layer.build(tuple(input_shape["features"]))
        self.output_layer.build((None, self.config.units))
        self.logits_layer.build((None, self.config.units))

    def compute_logits(self, hidden: Any, merged: Any, state: State, training: bool = False) -> Any:
        joint = self.merge_dropout(hidden + ops.expand_dims(state["image"], 1), training=training)
        return self.logits_layer(self.output_layer(joint))
