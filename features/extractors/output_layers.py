"""Cuts a Keras model at its output layer and turns that layer's output into features.

uint8 [N, H, W, 3] → input preprocessing → model up to the layer → [N, locations, channels], or [N, channels] if the
output is pooled or flat
"""

import difflib
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from schemas.choices import Pooling
from schemas.errors import UsageError

# Name of the model's own output, for models whose last layer has no stable name.
OUTPUT = "output"

FeatureFunction = Callable[[Any], Any]

_MAX_NAMES = 5


def build_in_thread(build: Callable[[], Any]) -> Any:
    """Returns the result of `build`, which runs in a thread of its own.

    Keras numbers unnamed layers per thread and keeps dtype policies per thread. A new thread produces the same names in
    every process, and leaves the caller's numbers and policies unchanged.
    """
    from features.runtime.keras_settings import apply_settings

    apply_settings()
    with ThreadPoolExecutor(1, thread_name_prefix="build") as pool:
        return pool.submit(build).result()


def truncate_model(model: Any, layer: str, name: str) -> Any:
    """Returns the `keras.Model` up to a layer or `output`; up to the first call of a layer with several calls."""
    from features.runtime.keras_settings import keras

    layers = {one.name: one for one in model.layers}
    if layer == OUTPUT and OUTPUT not in layers:
        output = _single_output(model.outputs)
    elif layer in layers:
        try:
            output = _single_output(layers[layer].output)
        except (AttributeError, ValueError):
            raise _layer_error(f"{name}: {layer} is never called") from None
    else:
        raise describe_unknown_layer(layer, [*layers], name)
    if output is None:
        raise _layer_error(f"{name}: {layer} has several outputs")
    try:
        return keras.Model(model.inputs[0], output)
    except ValueError:
        raise _layer_error(f"{name}: {layer} does not depend on the model's input alone") from None


def describe_unknown_layer(layer: str, names: list[str], name: str) -> UsageError:
    """Returns an error that lists the most similar layer names of the model `name`, or else the last ones."""
    near = difflib.get_close_matches(layer, names, _MAX_NAMES) or names[-_MAX_NAMES:]
    return UsageError(f"{name} has no layer {layer!r}", location="--layer", hint=f"Use one of {', '.join(near)}.")


@dataclass(frozen=True)
class ModelFunction:
    """A feature function of a Keras model: pixels [N, height, width, 3], 0…255 of any dtype, to features.

    Batch normalization and dropout run in inference mode, even while the model's weights are trained.
    """

    model: Any  # `keras.Model` up to the output layer, with its weights
    preprocess: FeatureFunction  # of float32 pixels 0…255
    locations: int | None  # number of spatial locations, or None if the output is flat
    channels: int
    pooling: Pooling  # `avg` averages over the locations; `none` keeps them on one axis
    dtype: Literal["float32", "float16"] = "float32"  # of the features; float16 overflows to infinity

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image's features."""
        if self.locations is None or self.pooling == "avg":
            return (self.channels,)
        return self.locations, self.channels

    def __call__(self, pixels: Any) -> Any:
        from features.runtime.keras_settings import ops

        inputs = self.preprocess(ops.cast(pixels, "float32"))
        outputs = ops.cast(self.model(inputs, training=False), "float32")
        if self.locations is not None:
            outputs = ops.reshape(outputs, (-1, self.locations, self.channels))
            outputs = ops.mean(outputs, axis=1) if self.pooling == "avg" else outputs
        return ops.cast(outputs, self.dtype)


def build_model_function(
    model: Any, preprocess: FeatureFunction, pooling: Pooling, height: int, width: int
) -> ModelFunction:
    """Returns the feature function of a truncated model for pixels of a height and width.

    Raises:
        UsageError: The layer's output is neither spatial nor flat, or the model does not support the input size.
    """
    try:
        shape = tuple(model.compute_output_shape((None, height, width, 3)))[1:]
    except (ValueError, ZeroDivisionError) as error:
        message = f"the model does not support {height}×{width}: {summarize_error(error)}"
        raise UsageError(message, location="--height, --width") from None
    if not 1 <= len(shape) <= 3 or None in shape:
        message = f"the layer's output {[None, *shape]} is neither spatial nor flat"
        hint = "Choose a layer with output [N, height, width, channels], [N, locations, channels] or [N, channels]."
        raise UsageError(message, location="--layer", hint=hint)
    locations = math.prod(shape[:-1]) if len(shape) > 1 else None
    return ModelFunction(_replace_grouped_convolutions(model), preprocess, locations, shape[-1], pooling)


def summarize_error(error: Exception) -> str:
    """Returns the first 200 characters of an error's message on one line."""
    return " ".join(str(error).split())[:200]


def _layer_error(message: str) -> UsageError:
    return UsageError(message, location="--layer", hint="Choose another layer.")


def _single_output(outputs: Any) -> Any:
    """Returns the output if there is only one, otherwise None. Keras returns one tensor, or a list."""
    if isinstance(outputs, list | tuple):
        return outputs[0] if len(outputs) == 1 else None
    return outputs if hasattr(outputs, "shape") else None


def _replace_grouped_convolutions(model: Any) -> Any:
    """Replaces grouped convolutions with one channel per group by equal depthwise convolutions.

    Keras compiles a grouped convolution into a function whose name differs from build to build. A frozen graph cannot
    contain it. ConvNeXt has such convolutions (Liu et al. 2022, arXiv:2201.03545). The result shares all other layers.
    """
    from features.runtime.keras_settings import keras

    def is_depthwise(layer: Any) -> bool:
        return (
            type(layer) is keras.layers.Conv2D
            and layer.groups > 1
            and layer.kernel.shape[2] == 1
            and len(set(layer.strides)) == 1
            and layer.data_format == "channels_last"
        )

    def copy_layer(layer: Any) -> Any:
        if not is_depthwise(layer):
            return layer
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

    has_any = any(map(is_depthwise, model.layers))
    return keras.models.clone_model(model, clone_function=copy_layer) if has_any else model
