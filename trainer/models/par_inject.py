"""Par-inject: the image goes into the recurrence with every word.

Where to put the Image in an Image Caption Generator (Tanti et al., 2018, arXiv:1703.09137, "par-inject"); sizes and
dropout are those that its authors' search settled on. They lay word and image side by side, here they are added, so
the image takes no weights of the recurrence's own:

    v = W·dropout(image)                          once an image
    h_t = GRU(dropout(embedded word t) + v, h_{t−1})
    logits = dense(dropout(h_t))
"""

from typing import Any

from features.runtime.keras_settings import keras, ops
from trainer.models.captioner import State
from trainer.models.recurrent_captioner import RecurrentCaptioner

# === Model ===


@keras.saving.register_keras_serializable("capt")
class ParInject(RecurrentCaptioner):
    """Captioner whose recurrence reads the image with every word.

    Args:
        vocabulary: int. Number of word ids.
        rnn_cell: str. `gru`, `lstm` or `rnn`.
        embedding_dim: int. Size of a word's vector, and of the image's.
        units: int. Size of the state.
        dropout: float. Share of the components of image, word vectors and hidden states that training leaves out,
            0 to 1.
        recurrent_weight_dropout: float. As in `trainer.models.recurrent_cells.RecurrentLayer`.

    Example:
        >>> model = ParInject(vocabulary=5000)
        >>> logits = model({"features": np.zeros((2, 4096)), "tokens": np.ones((2, 12), "int32")})
        >>> logits.shape
        (2, 12, 5000)
    """

    def __init__(
        self,
        vocabulary: int,
        rnn_cell: str = "gru",
        embedding_dim: int = 256,
        units: int = 256,
        dropout: float = 0.5,
        recurrent_weight_dropout: float = 0.0,
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
        self.image_dropout = keras.layers.Dropout(dropout, name="image_dropout")
        self.image_layer = keras.layers.Dense(embedding_dim, name="image")
        self.state_dropout = keras.layers.Dropout(dropout, name="state_dropout")
        self.logits_layer = keras.layers.Dense(vocabulary, dtype="float32", name="logits")

    def build(self, input_shape: dict[str, Any]) -> None:
        self.build_words(input_shape, reads=self.embedding_dim)
        self.image_layer.build(tuple(input_shape["features"]))
        self.logits_layer.build((None, self.units))

    def begin(self, features: Any, training: bool = False) -> State:
        image = self.image_layer(self.image_dropout(self.feature_scale(features), training=training))
        return {"image": image, **self.recurrence.zeros(ops.shape(image)[0])}

    def read(self, words: Any, state: State) -> Any:
        return words + ops.expand_dims(state["image"], 1)

    def say(self, hidden: Any, read: Any, state: State, training: bool = False) -> Any:
        return self.logits_layer(self.state_dropout(hidden, training=training))
