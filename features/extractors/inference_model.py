"""Networks for inference alone: in one precision, batch normalization folded in, averages taken of fewer channels.

A normalization of its own would read and write every convolution's output once more; a frozen graph's optimizer folds
it into the convolution before, and so is it done here, for backends that have no such optimizer. An average of
neighbouring places and a 1×1 convolution are both linear and may change places: InceptionV3's averages are taken of up
to ten times fewer channels after the convolution than before.
"""

from collections import Counter
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.choices import Precision

# Weights stay float32, and are cast where they are used.
_POLICIES: dict[Precision, str] = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def optimize_for_inference(network: Any, precision: Precision) -> Any:
    """A copy of a `keras.Model` that gives the same in inference, and is of no use for training.

    Args:
        network: keras.Model. Functional, built, with its weights; it stays as it is.
        precision: str. Arithmetic of its layers. A model within it keeps the precision that it was built in.
    """
    from features.runtime.keras_settings import keras

    followers = _followers(network)
    folded = _folded(network, followers)
    postponed = _postponed(network, followers)
    skipped = {layer.name for layer in (*folded.values(), *postponed.values())}

    @cache
    def copy_of(layer: Any) -> Any:
        if not isinstance(layer, keras.layers.Layer):
            return layer
        changed = {"dtype": _POLICIES[precision]} | ({"use_bias": True} if layer.name in folded else {})
        return type(layer).from_config(layer.get_config() | changed)

    def call(layer: Any, *given: Any, **options: Any) -> Any:
        if layer.name in skipped:
            return given[0]
        output = layer(*given, **options)
        return copy_of(postponed[layer.name])(output) if layer.name in postponed else output

    copy = keras.models.clone_model(network, clone_function=copy_of, call_function=call)
    for layer in network.layers:
        if layer.weights and layer.name not in skipped:
            weights = _fold(layer, folded[layer.name]) if layer.name in folded else layer.get_weights()
            copy.get_layer(layer.name).set_weights(weights)
    return copy


def _followers(network: Any) -> dict[str, Any]:
    """Of layers that are called once, the one layer that reads their output, where it too is called once; by name."""
    nodes = list(chain.from_iterable(network._nodes_by_depth.values()))
    calls = Counter(node.operation.name for node in nodes)
    readers: dict[int, list[Any]] = {}
    for node in nodes:
        for tensor in node.input_tensors:
            readers.setdefault(id(tensor), []).append(node.operation)
    found = {}
    for node in nodes:
        reading = [reader for tensor in node.output_tensors for reader in readers.get(id(tensor), [])]
        if len(reading) == 1 and calls[node.operation.name] == calls[reading[0].name] == 1:
            found[node.operation.name] = reading[0]
    return found


def _folded(network: Any, followers: dict[str, Any]) -> dict[str, Any]:
    """The normalization that follows a linear convolution, by the convolution's name."""
    from features.runtime.keras_settings import keras

    convolutions = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    return {
        layer.name: followers[layer.name]
        for layer in network.layers
        if layer.name in followers and _is_normalizer(followers[layer.name])
        if type(layer) in convolutions and _is_linear(layer)
    }


def _postponed(network: Any, followers: dict[str, Any]) -> dict[str, Any]:
    """The average over neighbours that a 1×1 convolution to fewer channels follows, by the convolution's name."""
    return {
        followers[layer.name].name: layer
        for layer in network.layers
        if layer.name in followers and _is_average(layer)
        if _is_pointwise(followers[layer.name]) and followers[layer.name].filters < layer.output.shape[-1]
    }


def _is_average(layer: Any) -> bool:
    from features.runtime.keras_settings import keras

    is_average = type(layer) is keras.layers.AveragePooling2D and layer.strides == (1, 1)
    return is_average and layer.data_format == "channels_last"


def _is_pointwise(layer: Any) -> bool:
    from features.runtime.keras_settings import keras

    is_pointwise = type(layer) is keras.layers.Conv2D and layer.kernel_size == layer.strides == (1, 1)
    return is_pointwise and _is_linear(layer)


def _is_linear(layer: Any) -> bool:
    from features.runtime.keras_settings import keras

    return layer.activation is keras.activations.linear and layer.data_format == "channels_last"


def _is_normalizer(layer: Any) -> bool:
    from features.runtime.keras_settings import keras

    return type(layer) is keras.layers.BatchNormalization and layer.axis in (-1, 3)


def _fold(layer: Any, normalizer: Any) -> list[NDArray[np.float32]]:
    """Kernel and bias of a convolution that gives what the two give one after the other."""
    from features.runtime.keras_settings import ops

    convert_to_numpy = ops.convert_to_numpy

    kernel = convert_to_numpy(layer.kernel)
    bias = convert_to_numpy(layer.bias) if layer.use_bias else np.float32(0)
    scale = 1 / np.sqrt(convert_to_numpy(normalizer.moving_variance) + np.float32(normalizer.epsilon))
    if normalizer.scale:
        scale = scale * convert_to_numpy(normalizer.gamma)
    offset = (bias - convert_to_numpy(normalizer.moving_mean)) * scale
    if normalizer.center:
        offset = offset + convert_to_numpy(normalizer.beta)
    # A depthwise kernel's channels are its last two axes, a plain one's the last.
    channels = kernel.shape[2:] if kernel.shape[-1] != len(scale) else kernel.shape[-1:]
    return [kernel * scale.reshape(channels), offset]
