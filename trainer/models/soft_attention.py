"""Soft attention: at every word the decoder looks at a weighted mean of the image's places.

Show, Attend and Tell (Xu et al., 2015, arXiv:1502.03044) with the additive score of Bahdanau et al. (2015) and a GRU
(Cho et al., 2014):

    features → dense relu → values f            keys k = W1·f, once per image
    score = v·tanh(k + W2·h),  α = softmax(score),  context = Σ α·f
    h = GRU([context, embedded word], h)        carried from word to word
    logits = dense(dense(h))                    for all words at once in training

The look is chosen before the word is read, as in the paper; `query: word` chooses it from state and word, so that what
was just named can be looked at. Lu et al. (2017, arXiv:1612.01887) do so by looking from the state after the word.

What the paper has besides is there to be chosen: h₀ = tanh(W·mean f), a gate σ(w·h) on the context, and
Σ_i (1 − Σ_t α_ti)² in the loss, which bids every place be looked at once.
"""

from typing import Any

from features.runtime.keras_settings import keras, ops
from trainer.models.attention import AdditiveAttention, weighted_sum
from trainer.models.captioner import Captioner, State
from trainer.models.losses import real_tokens
from trainer.models.recurrent_cells import RecurrentLayer

# === Model ===


@keras.saving.register_keras_serializable("capt")
class SoftAttention(Captioner):
    """Captioner with soft attention over places.

    Args:
        vocabulary: int. Number of word ids.
        rnn_cell: str. `gru`, `lstm` as in the paper, or `rnn`.
        embedding_dim: int. Size of a word's vector.
        units: int. Size of the recurrence's state.
        attention_dim: int. Size of the space in which the attention's score is taken.
        projection_dim: int or None. Size to which each place's features are reduced; None leaves them as they are.
        output_dim: int. Size of the layer before the logits.
        dropout: float. Share of word vectors' and hidden states' components that training leaves out, 0 to 1. Both are
            drawn outside the time loop, for all words at once.
        image_dropout: float. Share of the places' components that training leaves out, 0 to 1.
        attention_query: str. What decides where to look: the `state` before the word, or that and the `word` itself.
        init_state: str. The state before the first word: `zeros`, or made of the `mean` of the values.
        use_context_gate: bool. Whether the context is multiplied by a number in 0 … 1 that the state decides.
        doubly_stochastic: float. Weight of Σ_i (1 − Σ_t α_ti)² over a caption's real words. The paper adds it to a
            caption's loss; ours is a word's, so it is divided by the words that a caption has.

    Call arguments:
        inputs: as in `Captioner`; with `doubly_stochastic`, training needs `targets`.

    Example:
        >>> model = SoftAttention(vocabulary=5000)
        >>> logits = model({"features": np.zeros((2, 64, 2048)), "tokens": np.ones((2, 12), "int32")})
        >>> logits.shape
        (2, 12, 5000)
    """

    def __init__(
        self,
        vocabulary: int,
        rnn_cell: str = "gru",
        embedding_dim: int = 256,
        units: int = 512,
        attention_dim: int = 512,
        projection_dim: int | None = 256,
        output_dim: int = 512,
        dropout: float = 0.0,
        image_dropout: float = 0.0,
        attention_query: str = "state",
        init_state: str = "zeros",
        use_context_gate: bool = False,
        doubly_stochastic: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.vocabulary = vocabulary
        self.rnn_cell = rnn_cell
        self.embedding_dim = embedding_dim
        self.units = units
        self.attention_dim = attention_dim
        self.projection_dim = projection_dim
        self.output_dim = output_dim
        self.dropout = dropout
        self.image_dropout = image_dropout
        self.attention_query = attention_query
        self.init_state = init_state
        self.use_context_gate = use_context_gate
        self.doubly_stochastic = doubly_stochastic
        self.projection_layer = projection_dim and keras.layers.Dense(
            projection_dim, activation="relu", name="projection"
        )
        self.embedding_layer = keras.layers.Embedding(vocabulary, embedding_dim, name="embedding")
        self.attention_layer = AdditiveAttention(attention_dim, name="attention")
        self.recurrence = RecurrentLayer(rnn_cell, units, name="recurrence")
        self.init_layers = [
            keras.layers.Dense(units, activation="tanh", name=f"init_{name}")
            for name in (self.recurrence.state_names if init_state == "mean" else ())
        ]
        self.gate_layer = keras.layers.Dense(1, activation="sigmoid", name="gate") if use_context_gate else None
        self.image_dropout_layer = keras.layers.Dropout(image_dropout, name="image_dropout")
        self.word_dropout = keras.layers.Dropout(dropout, name="word_dropout")
        self.state_dropout = keras.layers.Dropout(dropout, name="state_dropout")
        self.output_layer = keras.layers.Dense(output_dim, name="output")
        self.logits_layer = keras.layers.Dense(vocabulary, dtype="float32", name="logits")

    def build(self, input_shape: dict[str, Any]) -> None:
        features = tuple(input_shape["features"])
        channels = self.projection_dim or features[-1]
        self.feature_scale.build(features)
        if self.projection_dim:
            self.projection_layer.build(features)
        self.embedding_layer.build(tuple(input_shape["tokens"]))
        query = self.units + (self.embedding_dim if self.attention_query == "word" else 0)
        self.attention_layer.build((None, query), (*features[:-1], channels))
        self.recurrence.build((None, None, channels + self.embedding_dim))
        for layer in self.init_layers:
            layer.build((None, channels))
        if self.use_context_gate:
            self.gate_layer.build((None, self.units))
        self.output_layer.build((None, self.units))
        self.logits_layer.build((None, self.output_dim))

    def call(self, inputs: dict[str, Any], training: bool = False) -> Any:
        memory = self.begin(inputs["features"], training=training)
        if "image" in inputs:
            memory = {name: ops.take(tensor, inputs["image"], axis=0) for name, tensor in memory.items()}
        words = self.word_dropout(self.embedding_layer(inputs["tokens"]), training=training)
        reads = ops.transpose(words, (1, 0, 2))
        draws = self._draws(inputs["tokens"], training)
        if draws is not None:
            # On TensorFlow, Keras' scan takes one tensor of unknown length.
            reads = ops.concatenate([ops.cast(reads, "float32"), ops.expand_dims(draws, -1)], axis=-1)
        before = {name: memory[name] for name in self.recurrence.state_names}
        unseen = self._unseen(memory, training)

        def advance(state: State, read: Any) -> tuple[State, State]:
            word, draw = (read, None) if draws is None else (read[:, :-1], read[:, -1])
            after, look = self._advance(state, ops.cast(word, self.compute_dtype), memory, draw)
            state = {**after, **{name: look[name] for name in unseen}}
            return state, state

        _, states = ops.scan(advance, {**before, **unseen}, reads)
        hidden = self.state_dropout(ops.transpose(states["hidden"], (1, 0, 2)), training=training)
        logits = self.logits_layer(self.output_layer(hidden))
        if training:
            self._add_losses(inputs, logits, {name: ops.swapaxes(states[name], 0, 1) for name in unseen})
        return logits

    def begin(self, features: Any, training: bool = False) -> State:
        values = self.image_dropout_layer(self.feature_scale(features), training=training)
        if self.projection_dim:
            values = self.projection_layer(values)
        keys = self.attention_layer.keys(values)
        return {"values": values, "keys": keys, **self._first(values)}

    def step(self, token: Any, state: State) -> tuple[Any, State, Any]:
        after, look = self._advance(state, self.embedding_layer(token), state)
        return self.logits_layer(self.output_layer(after["hidden"])), {**state, **after}, look["weights"]

    def _first(self, values: Any) -> State:
        """The recurrence's state before the first word, of the values [B, places, C]."""
        if self.init_state == "zeros":
            return self.recurrence.zeros(ops.shape(values)[0])
        mean = ops.mean(values, axis=1)
        layers = zip(self.recurrence.state_names, self.init_layers, strict=True)
        return {name: layer(mean) for name, layer in layers}

    def _advance(self, state: State, word: Any, memory: State, draw: Any = None) -> tuple[State, State]:
        """The recurrence's state after one more word, and what `_look` says of where it looked."""
        query = ops.concatenate([state["hidden"], word], axis=-1) if self.attention_query == "word" else state["hidden"]
        used, look = self._look(query, memory, draw)
        context = weighted_sum(used, memory["values"])
        if self.use_context_gate:
            context *= self.gate_layer(state["hidden"])
        return self.recurrence.step(ops.concatenate([context, word], axis=-1), state), look

    def _look(self, query: Any, memory: State, draw: Any = None) -> tuple[Any, State]:
        """The weights [B, places] by which the context is taken, and what is to be known of them, by name."""
        weights = self.attention_layer(query, memory["keys"])
        return weights, {"weights": weights}

    def _draws(self, tokens: Any, training: bool) -> Any:
        """What is drawn for every `_look` before the time loop, float32 [T, B], or None."""
        return None

    def _unseen(self, memory: State, training: bool) -> State:
        """What `_add_losses` wants to know of every look, by name, as zeros."""
        return {"weights": ops.zeros_like(memory["keys"][..., 0])} if training and self.doubly_stochastic else {}

    def _add_losses(self, inputs: dict[str, Any], logits: Any, looks: State) -> None:
        """Add to the loss what of it depends on the looks, [B, T, …] each."""
        if self.doubly_stochastic:
            real = real_tokens(inputs["targets"], self.left_out)
            seen = ops.sum(ops.cast(looks["weights"], "float32") * ops.expand_dims(real, -1), axis=1)
            uneven = ops.sum((1 - seen) ** 2, axis=-1) * ops.max(real, axis=1)
            self.add_loss(self.doubly_stochastic * ops.sum(uneven) / ops.maximum(ops.sum(real), 1.0))

    # === Config ===

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "vocabulary": self.vocabulary,
            "rnn_cell": self.rnn_cell,
            "embedding_dim": self.embedding_dim,
            "units": self.units,
            "attention_dim": self.attention_dim,
            "projection_dim": self.projection_dim,
            "output_dim": self.output_dim,
            "dropout": self.dropout,
            "image_dropout": self.image_dropout,
            "attention_query": self.attention_query,
            "init_state": self.init_state,
            "use_context_gate": self.use_context_gate,
            "doubly_stochastic": self.doubly_stochastic,
        }
