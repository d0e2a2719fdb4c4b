"""Builds AlexNet's layers: convolutions in groups, and local response normalization.

Keras compiles a grouped convolution into a function whose name differs from build to build, so a frozen graph cannot
contain it. The layer here computes one convolution per group.
"""

from typing import Any

from features.runtime.keras_settings import keras, ops


@keras.saving.register_keras_serializable("capt")
class GroupedConvolution(keras.layers.Layer):  # type: ignore[misc]
    """A convolution with stride 1 in groups: filters of one group read only the channels of this group.

    Maps float [B, H, W, C] to float [B, H, W, filters]. The kernel is [size, size, C / groups, filters], as in Keras.
    """

    def __init__(self, filters: int, size: int, groups: int, activation: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.filters, self.size, self.groups, self.use_bias = filters, size, groups, True
        self.activation = keras.activations.get(activation)

    def build(self, input_shape: Any) -> None:
        shape = (self.size, self.size, input_shape[-1] // self.groups, self.filters)
        self.kernel = self.add_weight(shape=shape, initializer="glorot_uniform", name="kernel")
        self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias")

    def call(self, inputs: Any) -> Any:
        channels = ops.split(inputs, self.groups, axis=-1)
        kernels = ops.split(ops.cast(self.kernel, inputs.dtype), self.groups, axis=-1)
        parts = [ops.conv(part, kernel, padding="same") for part, kernel in zip(channels, kernels, strict=True)]
        return self.activation(ops.concatenate(parts, axis=-1) + ops.cast(self.bias, inputs.dtype))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], self.filters)

    def get_config(self) -> dict[str, Any]:
        activation = keras.activations.serialize(self.activation)
        own = {"filters": self.filters, "size": self.size, "groups": self.groups, "activation": activation}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("capt")
class LocalResponseNormalization(keras.layers.Layer):  # type: ignore[misc]
    """Divides each value by (1 + 1e-4 / 5 · Σ x²)^0.75, with the sum over five neighboring channels."""

    _RADIUS, _ALPHA, _BETA = 2, 1e-4 / 5, 0.75

    def call(self, inputs: Any) -> Any:
        channels = inputs.shape[-1]
        squares = ops.pad(ops.square(inputs), [(0, 0), (0, 0), (0, 0), (self._RADIUS, self._RADIUS)])
        total = sum(squares[..., first : first + channels] for first in range(2 * self._RADIUS + 1))
        return inputs * (1 + self._ALPHA * total) ** -self._BETA

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


def build_alexnet(height: int, width: int, *, top: bool) -> Any:
    """Returns AlexNet up to `pool5`, or with `top` up to `fc7`, with random weights."""
    layers = keras.layers
    relu, pool = {"activation": "relu"}, {"pool_size": 3, "strides": 2}
    inputs = values = keras.Input((height, width, 3))
    stack = [
        layers.Conv2D(96, 11, 4, name="conv1", **relu),
        LocalResponseNormalization(name="norm1"),
        layers.MaxPooling2D(name="pool1", **pool),
        GroupedConvolution(256, 5, 2, name="conv2", **relu),
        LocalResponseNormalization(name="norm2"),
        layers.MaxPooling2D(name="pool2", **pool),
        layers.Conv2D(384, 3, padding="same", name="conv3", **relu),
        GroupedConvolution(384, 3, 2, name="conv4", **relu),
        GroupedConvolution(256, 3, 2, name="conv5", **relu),
        layers.MaxPooling2D(name="pool5", **pool),
    ]
    if top:
        dense = [layers.Dense(4096, name=name, **relu) for name in ("fc6", "fc7")]
        stack += [layers.Flatten(name="flatten"), *dense]
    for layer in stack:
        values = layer(values)
    return keras.Model(inputs, values, name="alexnet")
