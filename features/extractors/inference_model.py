"""Optimizes Keras models for inference: precision, folded batch normalization, and average pooling of fewer channels.

Unfolded, a normalization reads and writes the output of its convolution once more. TensorFlow's graph optimizer folds
it; other backends have no such optimizer. Average pooling and a 1×1 convolution are linear and commute: InceptionV3
then pools up to ten times fewer channels.
"""

from collections import Counter
from functools import cache
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.runtime.keras_settings import keras, ops
from schemas.choices import Precision

# Weights stay float32; layers cast them.
_POLICIES: dict[Precision, str] = {"float32": "float32", "bfloat16": "mixed_bfloat16"}


def optimize_for_inference(model: Any, precision: Precision) -> Any:
    """Returns a copy of a `keras.Model` with equal outputs in inference. The copy cannot be trained.

    Args:
        model: A functional `keras.Model`, built, with its weights. It is not changed.
        precision: Arithmetic of its layers. Nested models keep the precision that they were built with.
    """
    followers = _find_followers(model)
    folded = _find_foldable(model, followers)
    postponed = _find_postponable(model, followers)
    skipped = {layer.name for layer in (*folded.values(), *postponed.values())}

    @cache
    def copy_layer(layer: Any) -> Any:
        if not isinstance(layer, keras.layers.Layer):
            return layer
        changed = {"dtype": _POLICIES[precision]} | ({"use_bias": True} if layer.name in folded else {})
        return type(layer).from_config(layer.get_config() | changed)

    def call_layer(layer: Any, *inputs: Any, **options: Any) -> Any:
        if layer.name in skipped:
            return inputs[0]
        output = layer(*inputs, **options)
        return copy_layer(postponed[layer.name])(output) if layer.name in postponed else output

    copy = keras.models.clone_model(model, clone_function=copy_layer, call_function=call_layer)
    for layer in model.layers:
        if layer.weights and layer.name not in skipped:
            weights = _fold(layer, folded[layer.name]) if layer.name in folded else layer.get_weights()
            copy.get_layer(layer.name).set_weights(weights)
    return copy


def _find_followers(model: Any) -> dict[str, Any]:
    """Returns, by layer name, the only consumer of a layer's output if both layers are called once."""
    nodes = list(chain.from_iterable(model._nodes_by_depth.values()))
    calls = Counter(node.operation.name for node in nodes)
    consumers: dict[int, list[Any]] = {}
    for node in nodes:
        for tensor in node.input_tensors:
            consumers.setdefault(id(tensor), []).append(node.operation)
    followers = {}
    for node in nodes:
        layers = [layer for tensor in node.output_tensors for layer in consumers.get(id(tensor), [])]
        if len(layers) == 1 and calls[node.operation.name] == calls[layers[0].name] == 1:
            followers[node.operation.name] = layers[0]
    return followers


def _find_foldable(model: Any, followers: dict[str, Any]) -> dict[str, Any]:
    """Returns the normalizations that follow linear convolutions, by the name of the convolution."""
    convolutions = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)
    return {
        layer.name: followers[layer.name]
        for layer in model.layers
        if layer.name in followers and _is_normalization(followers[layer.name])
        if type(layer) in convolutions and _is_linear(layer)
    }


def _find_postponable(model: Any, followers: dict[str, Any]) -> dict[str, Any]:
    """Returns the average poolings before 1×1 convolutions to fewer channels, by the name of the convolution."""
    return {
        followers[layer.name].name: layer
        for layer in model.layers
        if layer.name in followers and _is_average_pooling(layer)
        if _is_pointwise(followers[layer.name]) and followers[layer.name].filters < layer.output.shape[-1]
    }


def _is_average_pooling(layer: Any) -> bool:
    is_average = type(layer) is keras.layers.AveragePooling2D and layer.strides == (1, 1)
    return is_average and layer.data_format == "channels_last"


def _is_pointwise(layer: Any) -> bool:
    is_pointwise = type(layer) is keras.layers.Conv2D and layer.kernel_size == layer.strides == (1, 1)
    return is_pointwise and _is_linear(layer)


def _is_linear(layer: Any) -> bool:
    return layer.activation is keras.activations.linear and layer.data_format == "channels_last"


def _is_normalization(layer: Any) -> bool:
    return type(layer) is keras.layers.BatchNormalization and layer.axis in (-1, 3)


def _fold(layer: Any, normalization: Any) -> list[NDArray[np.float32]]:
    """Returns the kernel and bias of a convolution that is equal to a convolution and its normalization."""
    to_numpy = ops.convert_to_numpy
    kernel = to_numpy(layer.kernel)
    bias = to_numpy(layer.bias) if layer.use_bias else np.float32(0)
    scale = 1 / np.sqrt(to_numpy(normalization.moving_variance) + np.float32(normalization.epsilon))
    if normalization.scale:
        scale = scale * to_numpy(normalization.gamma)
    offset = (bias - to_numpy(normalization.moving_mean)) * scale
    if normalization.center:
        offset = offset + to_numpy(normalization.beta)
    # A depthwise kernel has its channels on the last two axes, an ordinary kernel on the last one.
    channels = kernel.shape[2:] if kernel.shape[-1] != len(scale) else kernel.shape[-1:]
    return [kernel * scale.reshape(channels), offset]
