"""Layers: which one of a network is kept, and how its output becomes features.

uint8 [N, H, W, 3] → preprocessing → network up to the layer → [N, places, channels] or, pooled or flat, [N, channels]
"""

import difflib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from features.extractors.grouped_convolutions import replace_grouped_convolutions
from schemas.choices import Pooling
from schemas.errors import UsageError

# The network's own output, for networks that do not name their last layer.
OUTPUT = "output"

FeatureFunction = Callable[[Any], Any]

_SHOWN = 5


def build_in_thread(build: Callable[[], Any]) -> Any:
    """What `build` gives in a thread of its own.

    Keras numbers the layers that have no name of their own by thread, and keeps its policies by thread. So their names
    are the same in every process, whatever else it has built, and the caller's own numbers and policies stay.
    """
    from features.runtime.keras_settings import apply_settings

    apply_settings()
    with ThreadPoolExecutor(1, thread_name_prefix="build") as pool:
        return pool.submit(build).result()


def truncate_model(model: Any, layer: str, name: str) -> Any:
    """The `keras.Model` up to a layer; of one that is called several times, up to its first call.

    Args:
        model: keras.Model. Built.
        layer: str. A layer's name, or `output`.
        name: str. The network, as messages name it.

    Raises:
        UsageError: there is no such layer, or it has no one output.
    """
    from features.runtime.keras_settings import keras

    layers = {one.name: one for one in model.layers}
    if layer == OUTPUT and OUTPUT not in layers:
        output = _only(model.outputs)
    elif layer in layers:
        output = _output_of(layers[layer], name)
    else:
        raise describe_unknown_layer(layer, [*layers], name)
    if output is None:
        raise UsageError(f"{name}: {layer} has several outputs", location="--layer", hint="name a layer with one")
    try:
        return keras.Model(model.inputs[0], output)
    except ValueError:
        raise UsageError(
            f"{name}: {layer} does not follow from the input alone", location="--layer", hint="name another"
        ) from None


def describe_unknown_layer(layer: str, names: list[str], name: str) -> UsageError:
    """The error of a layer that is none, with the nearest names and the last ones."""
    near = difflib.get_close_matches(layer, names, _SHOWN) or names[-_SHOWN:]
    return UsageError(f"{name} has no layer {layer!r}", location="--layer", hint=f"it has {', '.join(near)}")


@dataclass(frozen=True)
class ModelFunction:
    """A network as a feature function: pixels [N, height, width, 3], 0…255 of any dtype, to features.

    Batch normalization and dropout are as in inference, also where the network's weights go on learning.

    Args:
        network: keras.Model. Up to the layer that is kept, with its weights.
        preprocess: function. Scales float32 pixels 0…255 as the network wants them.
        places: int or None. Places of an image's features, the rest of whose axes are channels; None where the layer
            has none.
        channels: int. Channels of a place, or of the image.
        pooling: str. `avg` averages over places; `none` keeps them on one axis.
        dtype: str. Of the features. float16 has infinity where a value does not fit.
    """

    network: Any
    preprocess: FeatureFunction
    places: int | None
    channels: int
    pooling: Pooling
    dtype: Literal["float32", "float16"] = "float32"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image's features."""
        if self.places is None or self.pooling == "avg":
            return (self.channels,)
        return self.places, self.channels

    def __call__(self, pixels: Any) -> Any:
        from features.runtime.keras_settings import ops

        scaled = self.preprocess(ops.cast(pixels, "float32"))
        maps = ops.cast(self.network(scaled, training=False), "float32")
        if self.places is not None:
            maps = ops.reshape(maps, (-1, self.places, self.channels))
            maps = ops.mean(maps, axis=1) if self.pooling == "avg" else maps
        return ops.cast(maps, self.dtype)


def build_model_function(
    kept: Any, preprocess: FeatureFunction, pooling: Pooling, height: int, width: int
) -> ModelFunction:
    """The function that an extractor is.

    Args:
        kept: keras.Model. The network up to the layer that is kept, with its weights.
        preprocess: function. Scales float32 pixels 0…255 as the network wants them.
        pooling: str. `avg` averages over places; `none` flattens them to one axis.
        height: int. Input height in pixels.
        width: int. Input width in pixels.

    Raises:
        UsageError: the layer's output is neither spatial nor flat, or the network cannot take this size.
    """
    *places, channels = _output_shape(kept, height, width)
    return ModelFunction(
        replace_grouped_convolutions(kept), preprocess, places[0] if places else None, channels, pooling
    )


def _only(outputs: Any) -> Any:
    """The one output of several, None where there are more; Keras gives one alone or a list."""
    if isinstance(outputs, list | tuple):
        return outputs[0] if len(outputs) == 1 else None
    return outputs if hasattr(outputs, "shape") else None


def _output_of(layer: Any, name: str) -> Any:
    try:
        return _only(layer.output)
    except (AttributeError, ValueError):
        raise UsageError(f"{name}: {layer.name} is never called", location="--layer", hint="name another") from None


def _output_shape(kept: Any, height: int, width: int) -> tuple[int, ...]:
    """Shape of one image's features: (channels,) or (places, channels)."""
    try:
        shape = tuple(kept.compute_output_shape((None, height, width, 3)))[1:]
    except (ValueError, ZeroDivisionError) as error:
        raise UsageError(
            f"the network cannot take {height}×{width}: {summarize_error(error)}", location="--height, --width"
        ) from None
    if not 1 <= len(shape) <= 3 or None in shape:
        raise UsageError(
            f"the layer gives {[None, *shape]}, which is neither spatial nor flat",
            location="--layer",
            hint="name one that gives [N, height, width, channels], [N, places, channels] or [N, channels]",
        )
    return (shape[0] * shape[1], shape[2]) if len(shape) == 3 else shape


def summarize_error(error: Exception) -> str:
    """The beginning of an error's message, on one line."""
    return " ".join(str(error).split())[:200]
