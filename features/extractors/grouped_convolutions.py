"""Grouped convolutions of one channel a group, which Keras compiles apart, as the depthwise ones that they are.

Keras hands a grouped convolution to a compiled function of its own, whose name changes from build to build and which
a frozen graph cannot hold. ConvNeXt has them (Liu et al. 2022, arXiv:2201.03545).
"""

from typing import Any

import numpy as np


def replace_grouped_convolutions(network: Any) -> Any:
    """The same `keras.Model` with depthwise convolutions in place of grouped ones of one channel a group.

    Args:
        network: keras.Model. Built, with its weights; the layers that stay are shared with it.
    """
    from features.runtime.keras_settings import keras

    if not any(map(_is_depthwise, network.layers)):
        return network
    return keras.models.clone_model(
        network, clone_function=lambda layer: _depthwise(layer) if _is_depthwise(layer) else layer
    )


def _is_depthwise(layer: Any) -> bool:
    from features.runtime.keras_settings import keras

    return (
        type(layer) is keras.layers.Conv2D
        and layer.groups > 1
        and layer.kernel.shape[2] == 1
        and len(set(layer.strides)) == 1
        and layer.data_format == "channels_last"
    )


def _depthwise(layer: Any) -> Any:
    from features.runtime.keras_settings import keras

    depthwise = keras.layers.DepthwiseConv2D(
        layer.kernel_size,
        strides=layer.strides,
        padding=layer.padding,
        depth_multiplier=layer.filters // layer.groups,
        dilation_rate=layer.dilation_rate,
        activation=layer.activation,
        use_bias=layer.use_bias,
        name=layer.name,
    )
    depthwise.build((None, None, None, layer.groups))
    depthwise.kernel.assign(np.reshape(np.asarray(layer.kernel), depthwise.kernel.shape))
    if layer.use_bias:
        depthwise.bias.assign(layer.bias)
    return depthwise
