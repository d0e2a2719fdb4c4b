"""Recurrent cells by name, with one shape of state: a plain RNN, an LSTM, a GRU, and the one that adds.

state   hidden [B, units], for an LSTM also carry [B, units]
inputs  → all words at once in training, one word at a time in decoding; the same weights and the same results
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from features.runtime.keras_settings import keras, ops

# === Layers ===


@keras.saving.register_keras_serializable("capt")
class MRnnCell(keras.layers.Layer):
    """h_t = relu(x_t + U·h_{t−1}), the recurrence of Mao et al. (2015, arXiv:1412.6632).

    Args:
        units: int. Size of the state, and of the inputs that are added to it.

    Call arguments:
        inputs: float [B, units].
        states: list of one tensor, float [B, units].
    """

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.state_size = units
        self.output_size = units

    def build(self, input_shape: Any) -> None:
        self.recurrent_kernel = self.add_weight(
            shape=(self.units, self.units), initializer="orthogonal", name="recurrent_kernel"
        )

    def call(self, inputs: Any, states: list[Any], training: bool = False) -> tuple[Any, list[Any]]:
        hidden = ops.relu(inputs + ops.matmul(states[0], self.recurrent_kernel))
        return hidden, [hidden]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("capt")
class RecurrentLayer(keras.layers.Layer):
    """A recurrent cell carried over words; where Keras has a fused kernel for it, all words at once use that.

    Args:
        cell: str. `rnn` (tanh), `lstm` (Hochreiter and Schmidhuber, 1997), `gru` (Cho et al., 2014), or `adding`
            (`MRnnCell`, whose inputs have as many components as its state).
        units: int. Size of the state.
        init_scale: float or None. Weights are drawn evenly from −init_scale to init_scale; None for Keras' defaults.
        forget_bias: float. Where the bias of an LSTM's forget gate begins: with 1 it keeps 73 % of its carry from one
            word to the next, with 3 it keeps 95 %. Other cells have no such gate.
        recurrent_weight_dropout: float. Fraction of the weights from state to state that training drops, 0 to 1, the
            same for all words of a batch (weight-dropped, Merity et al., 2018, arXiv:1708.02182), so that fused kernels
            can still be used.

    Call arguments:
        inputs: float [B, T, C].
        state: mapping. The state before the first word; other keys are left alone.

    Returns:
        float [B, T, units], the hidden state after each word.
    """

    def __init__(
        self,
        cell: str,
        units: int,
        init_scale: float | None = None,
        forget_bias: float = 1.0,
        recurrent_weight_dropout: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cell = cell
        self.units = units
        self.init_scale = init_scale
        self.forget_bias = forget_bias
        self.recurrent_weight_dropout = recurrent_weight_dropout
        self.kernel_dropout = keras.layers.Dropout(recurrent_weight_dropout, name="kernel_dropout")
        self.state_names = ("hidden", "carry") if cell == "lstm" else ("hidden",)
        self.layer = _LAYERS[cell](units, init_scale)
        if cell == "lstm":
            self.layer.cell.unit_forget_bias = False
            self.layer.cell.bias_initializer = _first_bias(forget_bias)

    def build(self, inputs_shape: Any, state_shape: Any = None) -> None:
        self.layer.build(inputs_shape)

    def zeros(self, batch: Any) -> dict[str, Any]:
        """The state of no words: zeros for `batch` captions."""
        return {name: ops.zeros((batch, self.units), dtype=self.compute_dtype) for name in self.state_names}

    def call(self, inputs: Any, state: Mapping[str, Any], training: bool = False) -> Any:
        with self._weights_left_out(training):
            return self.layer(inputs, initial_state=[state[name] for name in self.state_names])

    def step(self, inputs: Any, state: Mapping[str, Any]) -> dict[str, Any]:
        """The state after one more word, whose `hidden` is the output.

        Args:
            inputs: float [B, C].
            state: mapping. The state before.
        """
        _, states = self.layer.cell(inputs, [state[name] for name in self.state_names])
        return dict(zip(self.state_names, states, strict=True))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "cell": self.cell,
            "units": self.units,
            "init_scale": self.init_scale,
            "forget_bias": self.forget_bias,
            "recurrent_weight_dropout": self.recurrent_weight_dropout,
        }

    @contextlib.contextmanager
    def _weights_left_out(self, training: bool) -> Iterator[None]:
        cell = self.layer.cell
        kept = cell.recurrent_kernel
        cell.recurrent_kernel = self.kernel_dropout(ops.convert_to_tensor(kept), training=training)
        try:
            yield
        finally:
            cell.recurrent_kernel = kept


def uniform(scale: float | None, otherwise: str = "glorot_uniform") -> keras.initializers.Initializer:
    """An initializer that draws evenly from −scale to scale; without a scale, Keras' initializer of the name."""
    return keras.initializers.RandomUniform(-scale, scale) if scale else keras.initializers.get(otherwise)


def _first_bias(forget: float) -> Callable[..., Any]:
    """An initializer of an LSTM's bias [4 · units]: zeros, but for the forget gate, whose is the second quarter."""

    def make(shape: tuple[int], dtype: Any = None) -> Any:
        is_forget = np.arange(shape[0]) * 4 // shape[0] == 1
        return ops.convert_to_tensor(np.where(is_forget, forget, 0.0), dtype=dtype)

    return make


def _keras_layer(kind: Callable[..., keras.layers.RNN]) -> Callable[[int, float | None], keras.layers.RNN]:
    def make(units: int, scale: float | None) -> keras.layers.RNN:
        return kind(
            units,
            kernel_initializer=uniform(scale),
            recurrent_initializer=uniform(scale, "orthogonal"),
            return_sequences=True,
        )

    return make


def _adding(units: int, scale: float | None) -> keras.layers.RNN:
    return keras.layers.RNN(MRnnCell(units), return_sequences=True)


_LAYERS: Mapping[str, Callable[[int, float | None], keras.layers.RNN]] = {
    "rnn": _keras_layer(keras.layers.SimpleRNN),
    "lstm": _keras_layer(keras.layers.LSTM),
    "gru": _keras_layer(keras.layers.GRU),
    "adding": _adding,
}
