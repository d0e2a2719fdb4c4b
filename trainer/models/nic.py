"""Defines NIC: the image is the first input of an LSTM.

Show and Tell (Vinyals et al., 2015, arXiv:1411.4555), with the hyperparameters and training of the authors' code:

    x_{−1} = W·image                  h, c = LSTM(x_{−1}, 0)         once per image
    x_t = embedded word t             h, c = LSTM(x_t, (h, c))
    logits = dense(h)                 dropout on all inputs and outputs of the LSTM

With `feed: every`, x_t = embedded word t + W·image, with the same weights W. The paper reports that the image at every
step gives worse results, because the network overfits.
"""

from typing import Any

from features.runtime.keras_settings import keras, ops
from trainer.models.captioner import RecurrentCaptioner, State
from trainer.models.configs import NicConfig
from trainer.models.recurrent_layer import uniform


@keras.saving.register_keras_serializable("capt")
class Nic(RecurrentCaptioner):
    """Captioner that reads the image as the word before the start token."""

    config_class = NicConfig
    config: NicConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.config
        self.image_layer = keras.layers.Dense(
            config.embedding_dim, use_bias=False, kernel_initializer=uniform(config.init_scale), name="image"
        )
        self.image_dropout = keras.layers.Dropout(config.image_dropout, name="image_dropout")
        self.state_dropout = keras.layers.Dropout(config.dropout, name="state_dropout")
        self.logits_layer = keras.layers.Dense(
            self.vocabulary, kernel_initializer=uniform(config.init_scale), dtype="float32", name="logits"
        )

    def build(self, input_shape: dict[str, Any]) -> None:
        self.build_recurrence(input_shape, self.config.embedding_dim)
        self.image_layer.build(tuple(input_shape["features"]))
        self.logits_layer.build((None, self.config.units))

    def init_state(self, features: Any, training: bool = False) -> State:
        image = self.image_dropout(self.image_layer(self.feature_normalization(features)), training=training)
        state = self.recurrence.step(image, self.recurrence.init_state(ops.shape(image)[0]))
        return {"image": image, **state} if self.config.feed == "every" else state

    def merge_inputs(self, words: Any, state: State) -> Any:
        return words + ops.expand_dims(state["image"], 1) if self.config.feed == "every" else words
