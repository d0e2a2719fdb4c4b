"""Runs recurrent cells: all time steps at once in training, one at a time in decoding, with equal weights and results.

The state is `hidden` [B, units], and for an LSTM also `carry` [B, units].
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from features.runtime.keras_settings import keras, ops


@keras.saving.register_keras_serializable("capt")
class MRnnCell(keras.layers.Layer):
    """The cell h_t = relu(x_t + U·h_{t−1}) of Mao et al. (2015, arXiv:1412.6632); x and h are float [B, units]."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.state_size = self.output_size = units

    def build(self, input_shape: Any) -> None:
        shape = (self.state_size, self.state_size)
        self.recurrent_kernel = self.add_weight(shape=shape, initializer="orthogonal", name="recurrent_kernel")

    def call(self, inputs: Any, states: list[Any], training: bool = False) -> tuple[Any, list[Any]]:
        hidden = ops.relu(inputs + ops.matmul(states[0], self.recurrent_kernel))
        return hidden, [hidden]


@keras.saving.register_keras_serializable("capt")
class RecurrentLayer(keras.layers.Layer):
    """Runs a recurrent cell over the words; uses Keras' fused kernel if available.

    Args:
        cell: `rnn` (tanh), `lstm` (Hochreiter and Schmidhuber, 1997), `gru` (Cho et al., 2014), or `adding`
            (`MRnnCell`, whose inputs have the size of its state).
        units: Size of the state.
        init_scale: Initial weights are uniform between −init_scale and init_scale; None for Keras' defaults.
        forget_bias: Initial bias of an LSTM's forget gate.
        recurrent_weight_dropout: Dropout rate of the weights from state to state. One mask serves all time steps of a
            batch (weight-dropped LSTM, Merity et al., 2018, arXiv:1708.02182), so that fused kernels can be used.

    Call arguments:
        inputs: float [B, T, C].
        state: The state before the first time step, by name. Other keys are ignored.

    Returns:
        float [B, T, units], the hidden state after each time step.
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
        self.units = units
        self.kernel_dropout = keras.layers.Dropout(recurrent_weight_dropout, name="kernel_dropout")
        self.state_names = ("hidden", "carry") if cell == "lstm" else ("hidden",)
        self.layer = _make_layer(cell, units, init_scale)
        if cell == "lstm":
            self.layer.cell.unit_forget_bias = False
            # The second quarter of the bias is that of the forget gate.
            self.layer.cell.bias_initializer = keras.initializers.Constant(np.repeat([0.0, forget_bias, 0, 0], units))

    def build(self, inputs_shape: Any, state_shape: Any = None) -> None:
        self.layer.build(inputs_shape)

    def init_state(self, batch: Any) -> dict[str, Any]:
        """Returns zeros for `batch` captions."""
        return {name: ops.zeros((batch, self.units), dtype=self.compute_dtype) for name in self.state_names}

    def call(self, inputs: Any, state: Mapping[str, Any], training: bool = False) -> Any:
        cell = self.layer.cell
        kernel = cell.recurrent_kernel
        cell.recurrent_kernel = self.kernel_dropout(ops.convert_to_tensor(kernel), training=training)
        try:
            return self.layer(inputs, initial_state=[state[name] for name in self.state_names])
        finally:
            cell.recurrent_kernel = kernel

    def step(self, inputs: Any, state: Mapping[str, Any]) -> dict[str, Any]:
        """Computes the state after one more time step with inputs [B, C]; its `hidden` is the output."""
        _, states = self.layer.cell(inputs, [state[name] for name in self.state_names])
        return dict(zip(self.state_names, states, strict=True))


def uniform(scale: float | None, default: str = "glorot_uniform") -> Any:
    """Returns a uniform initializer from −scale to scale; without a scale, the Keras initializer named `default`."""
    return keras.initializers.RandomUniform(-scale, scale) if scale else keras.initializers.get(default)


def _make_layer(cell: str, units: int, scale: float | None) -> Any:
    if cell == "adding":
        return keras.layers.RNN(MRnnCell(units), return_sequences=True)
    layers = {"rnn": keras.layers.SimpleRNN, "lstm": keras.layers.LSTM, "gru": keras.layers.GRU}
    kernel, recurrent = uniform(scale), uniform(scale, "orthogonal")
    return layers[cell](units, kernel_initializer=kernel, recurrent_initializer=recurrent, return_sequences=True)
