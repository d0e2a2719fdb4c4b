"""What captioners of pooled features share: an image part, a recurrence over words, and a part that says the next.

    begin   features → state: what is known of the image, and the recurrence before the first word; once an image
    read    words, state → what the recurrence reads
    say     hidden states, what was read, state → logits

Training reads all words at once, decoding one at a time, through the same three.
"""

from typing import Any

from features.runtime.keras_settings import keras, ops
from trainer.models.captioner import Captioner, State
from trainer.models.recurrent_cells import RecurrentLayer, uniform


class RecurrentCaptioner(Captioner):
    """Base class of captioners with one recurrence over words.

    A subclass implements `begin` and, where they differ from these, `read` and `say`; its `build` begins with
    `build_words` and ends by building its own layers.

    Args:
        vocabulary: int. Number of word ids.
        rnn_cell: str. The recurrence, see `trainer.models.recurrent_cells.RecurrentLayer`.
        embedding_dim: int. Size of a word's vector.
        units: int. Size of the recurrence's state.
        dropout: float. Share of components that training leaves out, 0 to 1; drawn for all words at once, outside the
            time loop.
        init_scale: float or None. As in `trainer.models.recurrent_cells.RecurrentLayer`, for word vectors too.
        forget_bias: float. As in `trainer.models.recurrent_cells.RecurrentLayer`.
        recurrent_weight_dropout: float. As in `trainer.models.recurrent_cells.RecurrentLayer`.
    """

    def __init__(
        self,
        vocabulary: int,
        rnn_cell: str,
        embedding_dim: int,
        units: int,
        dropout: float,
        init_scale: float | None = None,
        forget_bias: float = 1.0,
        recurrent_weight_dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.vocabulary = vocabulary
        self.rnn_cell = rnn_cell
        self.embedding_dim = embedding_dim
        self.units = units
        self.dropout = dropout
        self.forget_bias = forget_bias
        self.recurrent_weight_dropout = recurrent_weight_dropout
        self.embedding_layer = keras.layers.Embedding(
            vocabulary, embedding_dim, embeddings_initializer=uniform(init_scale, "uniform"), name="embedding"
        )
        self.word_dropout = keras.layers.Dropout(dropout, name="word_dropout")
        self.recurrence = RecurrentLayer(
            rnn_cell, units, init_scale, forget_bias, recurrent_weight_dropout, name="recurrence"
        )

    def build_words(self, input_shape: dict[str, Any], reads: int) -> None:
        """Build what the base class holds; the recurrence reads vectors of `reads` components."""
        self.feature_scale.build(tuple(input_shape["features"]))
        self.embedding_layer.build(tuple(input_shape["tokens"]))
        self.recurrence.build((None, None, reads))

    def call(self, inputs: dict[str, Any], training: bool = False) -> Any:
        state = self.begin(inputs["features"], training=training)
        if "image" in inputs:
            state = {name: ops.take(tensor, inputs["image"], axis=0) for name, tensor in state.items()}
        words = self.word_dropout(self.embedding_layer(inputs["tokens"]), training=training)
        read = self.read(words, state)
        return self.say(self.recurrence(read, state, training=training), read, state, training=training)

    def step(self, token: Any, state: State) -> tuple[Any, State, Any]:
        read = self.read(ops.expand_dims(self.embedding_layer(token), 1), state)
        state = {**state, **self.recurrence.step(ops.squeeze(read, 1), state)}
        logits = self.say(ops.expand_dims(state["hidden"], 1), read, state)
        return ops.squeeze(logits, 1), state, None

    def begin(self, features: Any, training: bool = False) -> State:
        """The state before the first word: the recurrence's, and what else is known of the image.

        Args:
            features: float [N, channels].
            training: bool. Whether dropout is on.
        """
        raise NotImplementedError

    def read(self, words: Any, state: State) -> Any:
        """What the recurrence reads: the word vectors [B, T, embedding], or [B, T, C] made of them."""
        return words

    def say(self, hidden: Any, read: Any, state: State, training: bool = False) -> Any:
        """Logits [B, T, V] from the hidden states [B, T, units], what was read [B, T, C], and the state."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "vocabulary": self.vocabulary,
            "rnn_cell": self.rnn_cell,
            "embedding_dim": self.embedding_dim,
            "units": self.units,
            "dropout": self.dropout,
            "recurrent_weight_dropout": self.recurrent_weight_dropout,
        }
