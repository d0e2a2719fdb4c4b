"""Extractors: convolutional networks by name, with their input size, preprocessing and default layer.

uint8 [N, H, W, 3] → preprocessing → network up to `layer` → [N, places, channels] or, pooled, [N, channels]
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from schemas.errors import UsageError
from schemas.recipes import Pooling

# The network's own output, for networks whose last layer Keras numbers anew at every build.
OUTPUT = "output"


@dataclass(frozen=True)
class ExtractorSpec:
    """A network of `keras.applications` as an extractor.

    Args:
        name: str. What the command line calls it.
        module: str. Its module within `keras.applications`.
        application: str. Its function within `keras.applications`.
        side: int. Height and width of the input in pixels.
        layer: str. The layer kept where none is named: the last one before pooling.
        imagenet_hash: str. MD5 of the published ImageNet weights file without top, as Keras checks it.
    """

    name: str
    module: str
    application: str
    side: int
    layer: str
    imagenet_hash: str

    def build(self, weights: str | None = None) -> Any:
        """The `keras.Model` without its classifier; `weights` are Keras' own, `imagenet` or none."""
        import keras

        network = getattr(keras.applications, self.application)
        return network(include_top=False, weights=weights, input_shape=(self.side, self.side, 3))

    def preprocess(self) -> Callable[[Any], Any]:
        """The network's own scaling of float pixels 0…255."""
        function = importlib.import_module(f"keras.applications.{self.module}").preprocess_input
        return lambda pixels: function(pixels, data_format="channels_last")


EXTRACTORS = {
    spec.name: spec
    for spec in (
        ExtractorSpec(
            "inception_v3", "inception_v3", "InceptionV3", 299, "mixed10", "bcbd6486424b2319ff4ef7d526e38f63"
        ),
        ExtractorSpec(
            "mobilenet_v3_small", "mobilenet_v3", "MobileNetV3Small", 224, OUTPUT, "d3e8ec802a04aa4fc771ee12a9a9b836"
        ),
    )
}


def extractor_spec(name: str) -> ExtractorSpec:
    """The extractor called `name`; UsageError naming the ones there are."""
    if name not in EXTRACTORS:
        raise UsageError(f"unknown extractor {name!r}", where="--extractor", mend=f"use one of {', '.join(EXTRACTORS)}")
    return EXTRACTORS[name]


def feature_function(model: Any, spec: ExtractorSpec, layer: str, pooling: Pooling) -> Callable[[Any], Any]:
    """The function that an extractor is: uint8 pixels [N, H, W, 3] to float32 features.

    Args:
        model: keras.Model. Built and loaded.
        spec: ExtractorSpec. Gives the preprocessing.
        layer: str. The layer whose output is kept.
        pooling: str. `avg` averages over places; `none` flattens them to one axis.
    """
    import keras
    from keras import ops

    names = {candidate.name: candidate.output for candidate in model.layers} | {OUTPUT: model.output}
    if layer not in names:
        raise UsageError(
            f"{spec.name} has no layer {layer!r}", where="--layer", mend=f"its last ones are {', '.join([*names][-5:])}"
        )
    kept = keras.Model(model.input, names[layer])
    preprocess = spec.preprocess()

    def features(pixels: Any) -> Any:
        maps = kept(preprocess(ops.cast(pixels, "float32")), training=False)
        if len(maps.shape) == 2:
            return maps
        places = ops.reshape(maps, (-1, maps.shape[1] * maps.shape[2], maps.shape[3]))
        return ops.mean(places, axis=1) if pooling == "avg" else places

    return features
