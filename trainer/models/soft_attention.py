"""Defines soft attention: at every word, the decoder attends to a weighted mean over the image's locations.

Show, Attend and Tell (Xu et al., 2015, arXiv:1502.03044) with the additive score of Bahdanau et al. (2015) and a GRU
(Cho et al., 2014):

    features → dense relu → values f            keys k = W1·f, once per image
    score = v·tanh(k + W2·h),  α = softmax(score),  context = Σ α·f
    h = GRU([context, embedded word], h)        step by step
    logits = dense(dense(h))                    for all time steps at once in training

As in the paper, the attention does not depend on the current word. With `attention_query: word` it depends on state and
word, so that the model can attend to the object that it just named; Lu et al. (2017, arXiv:1612.01887) do so with the
state after the word. Options add the rest of the paper: h₀ = tanh(W·mean f) (`init_state`), a gate σ(w·h) on the
context (`use_context_gate`), and the regularizer Σ_i (1 − Σ_t α_ti)² (`doubly_stochastic`).
"""

from typing import Any, ClassVar

from features.runtime.keras_settings import keras, ops
from trainer.models.captioner import Captioner, State
from trainer.models.configs import ModelConfig, SoftAttentionConfig
from trainer.models.losses import real_tokens
from trainer.models.recurrent_layer import RecurrentLayer

# === Layers ===


@keras.saving.register_keras_serializable("capt")
class AdditiveAttention(keras.layers.Layer):
    """Attention with the score v·tanh(W1·f + W2·h) of Bahdanau et al. (2015, arXiv:1409.0473).

    Maps a query float [B, Q] and the result of `compute_keys` to weights float [B, locations], whose rows sum to 1.

    Args:
        units: Size of the space in which keys and query are added.
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.key_layer = keras.layers.Dense(units, use_bias=False, name="key")
        self.query_layer = keras.layers.Dense(units, name="query")
        self.score_layer = keras.layers.Dense(1, use_bias=False, name="score")

    def build(self, query_shape: Any, values_shape: Any) -> None:
        self.key_layer.build(values_shape)
        self.query_layer.build(query_shape)
        self.score_layer.build((*values_shape[:-1], self.units))

    def compute_keys(self, values: Any) -> Any:
        """Computes the keys W1·f, which do not depend on the query: [B, locations, C] → [B, locations, units]."""
        return self.key_layer(values)

    def call(self, query: Any, keys: Any) -> Any:
        mixed = ops.tanh(keys + ops.expand_dims(self.query_layer(query), 1))
        return ops.softmax(ops.squeeze(self.score_layer(mixed), -1), axis=-1)


def weighted_sum(weights: Any, values: Any) -> Any:
    """Returns Σ weights·values [B, C] over the locations, for weights [B, locations], values [B, locations, C]."""
    return ops.squeeze(ops.matmul(ops.expand_dims(weights, 1), values), 1)


# === Model ===


@keras.saving.register_keras_serializable("capt")
class SoftAttention(Captioner):
    """Captioner with soft attention over locations.

    In training without `targets`, the regularizer `doubly_stochastic` is not added.
    """

    config_class: ClassVar[type[ModelConfig]] = SoftAttentionConfig
    config: SoftAttentionConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.config
        size = config.projection_dim
        self.projection_layer: Any = keras.layers.Dense(size, activation="relu", name="projection") if size else None
        self.embedding_layer = keras.layers.Embedding(self.vocabulary, config.embedding_dim, name="embedding")
        self.attention_layer = AdditiveAttention(config.attention_dim, name="attention")
        self.recurrence = RecurrentLayer(config.rnn_cell, config.units, name="recurrence")
        self.init_layers = [
            keras.layers.Dense(config.units, activation="tanh", name=f"init_{name}")
            for name in (self.recurrence.state_names if config.init_state == "mean" else ())
        ]
        gated = config.use_context_gate
        self.gate_layer: Any = keras.layers.Dense(1, activation="sigmoid", name="gate") if gated else None
        self.image_dropout = keras.layers.Dropout(config.image_dropout, name="image_dropout")
        self.word_dropout = keras.layers.Dropout(config.dropout, name="word_dropout")
        self.state_dropout = keras.layers.Dropout(config.dropout, name="state_dropout")
        self.output_layer = keras.layers.Dense(config.output_dim, name="output")
        self.logits_layer = keras.layers.Dense(self.vocabulary, dtype="float32", name="logits")

    def build(self, input_shape: dict[str, Any]) -> None:
        config, features = self.config, tuple(input_shape["features"])
        channels = config.projection_dim or features[-1]
        self.feature_normalization.build(features)
        if self.projection_layer:
            self.projection_layer.build(features)
        self.embedding_layer.build(tuple(input_shape["tokens"]))
        query = config.units + (config.embedding_dim if config.attention_query == "word" else 0)
        self.attention_layer.build((None, query), (*features[:-1], channels))
        self.recurrence.build((None, None, channels + config.embedding_dim))
        for layer in self.init_layers:
            layer.build((None, channels))
        if self.gate_layer:
            self.gate_layer.build((None, config.units))
        self.output_layer.build((None, config.units))
        self.logits_layer.build((None, config.output_dim))

    def call(self, inputs: dict[str, Any], training: bool = False) -> Any:
        adds_losses = training and "targets" in inputs
        memory = self.init_state(inputs["features"], training=training)
        if "image" in inputs:
            memory = {name: ops.take(tensor, inputs["image"], axis=0) for name, tensor in memory.items()}
        words = self.word_dropout(self.embedding_layer(inputs["tokens"]), training=training)
        scanned = ops.transpose(words, (1, 0, 2))
        samples = self._sample_uniform(inputs["tokens"], adds_losses)
        if samples is not None:
            # On TensorFlow, Keras' scan accepts one tensor of unknown length.
            scanned = ops.concatenate([ops.cast(scanned, "float32"), ops.expand_dims(samples, -1)], axis=-1)
        before = {name: memory[name] for name in self.recurrence.state_names}
        recorded = self._init_recorded(memory, adds_losses)

        def advance(state: State, inputs: Any) -> tuple[State, State]:
            word, sample = (inputs, None) if samples is None else (inputs[:, :-1], inputs[:, -1])
            after, attended = self._advance(state, ops.cast(word, self.compute_dtype), memory, sample)
            state = {**after, **{name: attended[name] for name in recorded}}
            return state, state

        _, states = ops.scan(advance, {**before, **recorded}, scanned)
        hidden = self.state_dropout(ops.transpose(states["hidden"], (1, 0, 2)), training=training)
        logits = self.logits_layer(self.output_layer(hidden))
        if adds_losses:
            self._add_losses(inputs, logits, {name: ops.swapaxes(states[name], 0, 1) for name in recorded})
        return logits

    def init_state(self, features: Any, training: bool = False) -> State:
        values = self.image_dropout(self.feature_normalization(features), training=training)
        values = self.projection_layer(values) if self.projection_layer else values
        if self.config.init_state == "zeros":
            recurrent = self.recurrence.init_state(ops.shape(values)[0])
        else:
            mean = ops.mean(values, axis=1)
            layers = zip(self.recurrence.state_names, self.init_layers, strict=True)
            recurrent = {name: layer(mean) for name, layer in layers}
        return {"values": values, "keys": self.attention_layer.compute_keys(values), **recurrent}

    def step(self, token: Any, state: State) -> tuple[Any, State, Any]:
        after, attended = self._advance(state, self.embedding_layer(token), state)
        return self.logits_layer(self.output_layer(after["hidden"])), {**state, **after}, attended["weights"]

    def _advance(self, state: State, word: Any, memory: State, sample: Any = None) -> tuple[State, State]:
        """Returns the recurrent state after one more word, and the result of `_attend`."""
        uses_word = self.config.attention_query == "word"
        query = ops.concatenate([state["hidden"], word], axis=-1) if uses_word else state["hidden"]
        used, attended = self._attend(query, memory, sample)
        context = weighted_sum(used, memory["values"])
        if self.config.use_context_gate:
            context *= self.gate_layer(state["hidden"])
        return self.recurrence.step(ops.concatenate([context, word], axis=-1), state), attended

    def _attend(self, query: Any, memory: State, sample: Any = None) -> tuple[Any, State]:
        """Returns the weights [B, locations] of the context, and tensors about them for `_add_losses`, by name."""
        weights = self.attention_layer(query, memory["keys"])
        return weights, {"weights": weights}

    def _sample_uniform(self, tokens: Any, adds_losses: bool) -> Any:
        """Returns random numbers float32 [T, B] for `_attend`, sampled before the time loop, or None."""
        return None

    def _init_recorded(self, memory: State, adds_losses: bool) -> State:
        """Returns zeros in the shapes of the tensors of `_attend` that `_add_losses` needs from every time step."""
        records = adds_losses and self.config.doubly_stochastic
        return {"weights": ops.zeros_like(memory["keys"][..., 0])} if records else {}

    def _add_losses(self, inputs: dict[str, Any], logits: Any, recorded: State) -> None:
        """Adds the losses that depend on the recorded tensors [B, T, …] of the attention."""
        if self.config.doubly_stochastic:
            real = real_tokens(inputs["targets"], self.ignored_ids)
            total = ops.sum(ops.cast(recorded["weights"], "float32") * ops.expand_dims(real, -1), axis=1)
            uneven = ops.sum((1 - total) ** 2, axis=-1) * ops.max(real, axis=1)
            self.add_loss(self.config.doubly_stochastic * ops.sum(uneven) / ops.maximum(ops.sum(real), 1.0))
