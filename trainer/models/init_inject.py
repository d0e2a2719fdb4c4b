"""Defines Init-inject: the image is the initial state of the recurrent layer.

Where to put the Image in an Image Caption Generator (Tanti et al., 2018, arXiv:1703.09137, "init-inject"), with
bottlenecks around a small LSTM as in an exercise of the course Introduction to Deep Learning (HSE, 2017):

    h_0 = c_0 = elu(W2·elu(W1·image))             once per image
    h_t, c_t = LSTM(embedded word t, (h, c))
    logits = dense(elu(W3·h_t))
"""

from typing import Any

from features.runtime.keras_settings import keras
from trainer.models.captioner import RecurrentCaptioner, State
from trainer.models.configs import InitInjectConfig


@keras.saving.register_keras_serializable("capt")
class InitInject(RecurrentCaptioner):
    """Captioner whose recurrent layer starts from the image."""

    config_class = InitInjectConfig
    config: InitInjectConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.config
        self.image_dropout = keras.layers.Dropout(config.image_dropout, name="image_dropout")
        self.image_layer = keras.layers.Dense(config.image_bottleneck, activation="elu", name="image")
        self.init_layer = keras.layers.Dense(config.units, activation="elu", name="init")
        self.state_dropout = keras.layers.Dropout(config.dropout, name="state_dropout")
        self.output_layer = keras.layers.Dense(config.logit_bottleneck, activation="elu", name="output")
        self.logits_layer = keras.layers.Dense(self.vocabulary, dtype="float32", name="logits")

    def build(self, input_shape: dict[str, Any]) -> None:
        self.build_recurrence(input_shape, self.config.embedding_dim)
        self.image_layer.build(tuple(input_shape["features"]))
        self.init_layer.build((None, self.config.image_bottleneck))
        self.output_layer.build((None, self.config.units))
        self.logits_layer.build((None, self.config.logit_bottleneck))

    def init_state(self, features: Any, training: bool = False) -> State:
        image = self.image_dropout(self.feature_normalization(features), training=training)
        initial = self.init_layer(self.image_layer(image))
        return dict.fromkeys(self.recurrence.state_names, initial)

    def compute_logits(self, hidden: Any, merged: Any, state: State, training: bool = False) -> Any:
        return self.logits_layer(self.output_layer(self.state_dropout(hidden, training=training)))
