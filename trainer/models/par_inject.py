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

# === Model ===


@keras.saving.register_keras_serializable("capt")
class ParInject(RecurrentCaptioner):
    """Captioner whose recurrent layer reads the sum of word and image.

    Example:
        >>> model = ParInject(5000, ParInjectConfig(units=128))
        >>> logits = model({"features": np.zeros((2, 4096)), "tokens": np.ones((2, 12), "int32")})
        >>> logits.shape
        (2, 12, 5000)
    """

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

    def init_state(self, features: Any, training: bool = False) -> State:
        image = self.image_layer(self.image_dropout(self.feature_normalization(features), training=training))
        return {"image": image, **self.recurrence.init_state(ops.shape(image)[0])}

    def merge_inputs(self, words: Any, state: State) -> Any:
        return words + ops.expand_dims(state["image"], 1)

    def compute_logits(self, hidden: Any, merged: Any, state: State, training: bool = False) -> Any:
        return self.logits_layer(self.state_dropout(hidden, training=training))
