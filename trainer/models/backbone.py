"""Pixels: an extractor in the model, frozen or learning with it, so that a captioner reads images instead of features.

    pixels uint8 [N, H, W, 3] → network up to a layer → features [N, places, channels] or [N, channels] → scaled

A run directory keeps the network's layers in `extractor.json`; its weights are among the model's, so a run needs
neither the file nor the download that they came from.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.extractors.factory import choose_input_preprocessing, open_extractor
from features.extractors.output_layers import ModelFunction, build_model_function
from features.extractors.pixels import NAME as PIXELS
from features.runtime.keras_settings import keras, ops
from schemas.errors import CorruptFileError, UsageError
from schemas.options.extractor import ExtractorOptions
from schemas.strict_json import parse_json
from schemas.table_config import FeatureTableConfig
from trainer.config import TrainingConfig
from trainer.models.captioner import FeatureNormalization
from trainer.models.model_specs import ModelSpec

_FIT_IMAGES = 16
_OPTIONS = {
    "--extractor": "extractor",
    "--weights": "extractor_weights",
    "--layer": "extractor_layer",
    "--preprocess": "extractor_preprocess",
}


@dataclass(frozen=True)
class Backbone:
    """A network as a run on pixels begins with it.

    Args:
        table_config: FeatureTableConfig. What its features are: that of the table that it would make of the same
            images.
        function: ModelFunction. From pixels to features.
    """

    table_config: FeatureTableConfig
    function: ModelFunction

    @property
    def layers(self) -> bytes:
        """What `extractor.json` keeps: the network without its weights, in Keras' own form."""
        return json.dumps(keras.saving.serialize_keras_object(self.function.model)).encode()


def open_backbone(training: TrainingConfig, spec: ModelSpec, pixels: FeatureTableConfig) -> Backbone:
    """The network that a run's configuration names, with its weights.

    Args:
        training: TrainingConfig. Names the network.
        spec: ModelSpec. The model; it decides whether the network's features are pooled.
        pixels: FeatureTableConfig. The table of pixels.

    Raises:
        UsageError: there is no such network, or its features are not what the model wants.
        CaptError: its weights cannot be had.
    """
    if training.extractor == PIXELS:
        raise UsageError("pixels are what the extractor reads", location="extractor", hint="name a network")
    asked = ExtractorOptions(
        extractor=training.extractor or "",
        weights=training.extractor_weights,
        layer=training.extractor_layer,
        preprocess=training.extractor_preprocess,
        pooling="none" if spec.spatial else "avg",
        height=pixels.height,
        width=pixels.width,
        storage_dtype="float32",
    )
    try:
        extractor = open_extractor(asked)
        choice = {**asdict(extractor.resolve_config()), "pooling": asked.pooling, "precision": "float32"}
        fitting = {name: getattr(pixels, name) for name in ("resize", "fit", "shorter_side")}
        table_config = FeatureTableConfig(**choice, **fitting)
        function = extractor.build_function(table_config)
    except UsageError as error:
        raise _of_training(error, pixels) from None
    assert isinstance(function, ModelFunction)
    if not spec.fits(function.shape):
        raise UsageError(
            f"{spec.name} wants {'spatial' if spec.spatial else 'pooled'} features, and {table_config.layer} gives "
            f"{list(function.shape)}",
            location="extractor_layer",
            hint="name another layer",
        )
    return Backbone(table_config, function)


def _of_training(error: UsageError, pixels: FeatureTableConfig) -> UsageError:
    """The error of an extractor in the words of a run's configuration."""
    if error.location in ("--height", "--width", "--height, --width"):
        return UsageError(
            f"{error.message}; the table's pixels are {pixels.height}×{pixels.width}",
            location="extractor",
            hint="make others with `capt prepare features --extractor pixels --height N --width N`",
        )
    return UsageError(error.message, location=_OPTIONS.get(error.location, error.location), hint=error.hint)


# === Layers ===


@keras.saving.register_keras_serializable("capt")
class BackboneFeatures(FeatureNormalization):
    """Standardized features of pixels: a network, and the scale of what it gives. It stands in a model's place for it.

    In half precision the network computes in it as well. Batch normalization keeps the means and deviations that it
    came with, and learns its own scale and offset with the rest.

    Args:
        function: ModelFunction. The network.
        learns: bool. Whether its weights do.

    Call arguments:
        features: uint8 [N, height, width, 3]. Pixels, of which it makes the features.
    """

    def __init__(self, function: ModelFunction, learns: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.network = function.model
        self.network.trainable = learns
        if self.compute_dtype != "float32":
            for layer in _layers(self.network):
                layer.dtype_policy = self.dtype_policy
        self._function = function

    def fit(self, features: NDArray[Any]) -> None:
        """Measure the network's features of some images, given as pixels [N, height, width, 3]."""
        blocks = range(0, len(features), _FIT_IMAGES)
        made = [ops.convert_to_numpy(self._function(features[i : i + _FIT_IMAGES])) for i in blocks]
        super().fit(np.concatenate(made))

    def call(self, features: Any) -> Any:
        return super().call(ops.cast(self._function(features), self.compute_dtype))


def load_layers(path: Path, table_config: FeatureTableConfig, learns: bool) -> BackboneFeatures:
    """The layer that a run on pixels has in place of `feature_scale`, with fresh weights.

    Args:
        path: Path. `extractor.json`.
        table_config: FeatureTableConfig. What the network's features are.
        learns: bool. Whether the network's weights do.

    Raises:
        CorruptFileError: the file is missing or damaged.
    """
    try:
        network = keras.saving.deserialize_keras_object(parse_json(path.read_bytes()), safe_mode=True)
        function = build_model_function(
            network,
            choose_input_preprocessing(table_config),
            table_config.pooling,
            table_config.height,
            table_config.width,
        )
    except FileNotFoundError:
        raise CorruptFileError("the extractor's layers are missing", location=str(path)) from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CorruptFileError("the extractor's layers are damaged", location=str(path)) from error
    return BackboneFeatures(function, learns, name="feature_scale")


def _layers(network: Any) -> Iterator[Any]:
    for layer in network.layers:
        yield layer
        if hasattr(layer, "layers"):
            yield from _layers(layer)
