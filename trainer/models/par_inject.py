"""Defines Par-inject: the recurrent layer reads the image with every word.

Where to put the Image in an Image Caption Generator (Tanti et al., 2018, arXiv:1703.09137, "par-inject"), with the
hyperparameters that the authors' search selected. The authors concatenate word and image; here the image is added to
the word, so that it needs no recurrent weights of its own:

    v = W·dropout(image)                          once per image
    h_t = GRU(dropout(embedded word t) + v, h_{t−1})
    logits = dense(dropout(h_t))
"""

from typing import Any

from features.runtime.keras_settings import keras, ops
from trainer.models.captioner import RecurrentCaptioner, State
from trainer.models.configs import ParInjectConfig


@keras.saving.register_keras_serializable("capt")
class ParInject(RecurrentCaptioner):
    """Captioner whose recurrent layer reads the sum of word and image."""

    config_class = ParInjectConfig
    config: ParInjectConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.config
        self.image_dropout = keras.layers.Dropout(config.dropout, name="image_dropout")
        self.image_layer = keras.layers.Dense(config.embedding_dim, name="image")
        self.state_dropout = keras.layers.Dropout(config.dropout, name="state_dropout")
        self.logits_layer = keras.layers.Dense(self.vocabulary, dtype="float32", name="logits")

    def build(self, input_shape: dict[str, Any]) -> None:
        self.build_recurrence(input_shape, self.config.embedding_dim)
        self.image_layer.build(tuple(input_shape["features"]))
        self.logits_layer.build((None, self.config.units))

    def merge_inputs(self, words: Any, state: State) -> Any:
        return words + ops.expand_dims(state["image"], 1)
