"""Replaces grouped convolutions with one channel per group by equal depthwise convolutions.

Keras compiles a grouped convolution into a function whose name differs from build to build. A frozen graph cannot
contain it. ConvNeXt has such convolutions (Liu et al. 2022, arXiv:2201.03545).
"""

from typing import Any

import numpy as np


def replace_grouped_convolutions(model: Any) -> Any:
    """Returns an equal `keras.Model` with depthwise convolutions, or the model itself without such convolutions.

    Args:
        model: A built `keras.Model` with its weights. The result shares its other layers.
    """
    from features.runtime.keras_settings import keras

    if not any(map(_is_depthwise, model.layers)):
        return model
    return keras.models.clone_model(
        model, clone_function=lambda layer: _build_depthwise(layer) if _is_depthwise(layer) else layer
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


def _build_depthwise(layer: Any) -> Any:
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
