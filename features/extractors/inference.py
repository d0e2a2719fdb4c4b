"""Networks for inference alone: in one precision, batch normalization folded into the convolutions before it.

What a frozen graph's optimizer does, for backends that have none: a normalization of its own would read and write every
convolution's output once more.
"""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.recipes import Precision

# Weights stay float32, and are cast where they are used.
_POLICIES: dict[Precision, str] = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def for_inference(network: Any, precision: Precision) -> Any:
    """A copy of a `keras.Model` that gives the same in inference, and is of no use for training.

    Args:
        network: keras.Model. Functional, built, with its weights; it stays as it is.
        precision: str. Arithmetic of its layers. A model within it keeps the precision that it was built in.
    """
    import keras

    folded = _folded(network)
    normalizers = {normalizer.name for normalizer in folded.values()}

    @cache
    def copy_of(layer: Any) -> Any:
        if not isinstance(layer, keras.layers.Layer):
            return layer
        changed = {"dtype": _POLICIES[precision]} | ({"use_bias": True} if layer.name in folded else {})
        return type(layer).from_config(layer.get_config() | changed)

    def call(layer: Any, *given: Any, **options: Any) -> Any:
        return given[0] if layer.name in normalizers else layer(*given, **options)

    copy = keras.models.clone_model(network, clone_function=copy_of, call_function=call)
    for layer in network.layers:
        if layer.weights and layer.name not in normalizers:
            weights = _fold(layer, folded[layer.name]) if layer.name in folded else layer.get_weights()
            copy.get_layer(layer.name).set_weights(weights)
    return copy


def _folded(network: Any) -> dict[str, Any]:
    """The normalization that alone reads a linear convolution's output, by the convolution's name."""
    import keras

    readers: dict[int, list[Any]] = {}
    for layer in network.layers:
        for tensor in keras.tree.flatten(_tensors(layer, "input")):
            readers.setdefault(id(tensor), []).append(layer)
    found = {}
    for layer in network.layers:
        if type(layer) in (keras.layers.Conv2D, keras.layers.DepthwiseConv2D) and _is_linear(layer):
            reading = readers.get(id(_tensors(layer, "output")), [])
            if len(reading) == 1 and _is_normalizer(reading[0]):
                found[layer.name] = reading[0]
    return found


def _tensors(layer: Any, side: str) -> Any:
    """A layer's symbolic input or output, nothing where it is called several times."""
    try:
        return getattr(layer, side)
    except (AttributeError, ValueError):
        return []


def _is_linear(layer: Any) -> bool:
    import keras

    return layer.activation is keras.activations.linear and layer.data_format == "channels_last"


def _is_normalizer(layer: Any) -> bool:
    import keras

    return type(layer) is keras.layers.BatchNormalization and layer.axis in (-1, 3)


def _fold(layer: Any, normalizer: Any) -> list[NDArray[np.float32]]:
    """Kernel and bias of a convolution that gives what the two give one after the other."""
    from keras.ops import convert_to_numpy

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
