"""Puts an extractor into a captioner, frozen or fine-tuned, so that the captioner reads pixels instead of features.

    pixels uint8 [N, H, W, 3] → extractor up to a layer → features [N, locations, channels] or [N, channels] → scaled

A run directory stores the extractor's layers in `extractor.json` and its weights with the model's, so a run needs
neither the extractor's file nor its download.
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
from features.extractors.registered_layers import register_layers
from features.runtime.keras_settings import keras, ops
from schemas.errors import CorruptFileError, UsageError
from schemas.options.extractor import ExtractorOptions
from schemas.strict_json import parse_json
from schemas.table_config import FeatureTableConfig
from trainer.models.captioner import FeatureNormalization
from trainer.models.configs import BackboneConfig
from trainer.models.model_specs import ModelSpec

_BATCH_SIZE = 16
_HYPERPARAMETERS = {
    "--extractor": "extractor",
    "--weights": "extractor_weights",
    "--layer": "extractor_layer",
    "--preprocess": "extractor_preprocess",
}


@dataclass(frozen=True)
class Backbone:
    """An extractor at the start of a run on pixels.

    Args:
        table_config: Config of the feature table that the extractor would compute from the same images.
        function: Computes features from pixels.
    """

    table_config: FeatureTableConfig
    function: ModelFunction

    def serialize(self) -> bytes:
        """Returns the content of `extractor.json`: the Keras model without its weights."""
        return json.dumps(keras.saving.serialize_keras_object(self.function.model)).encode()


def open_backbone(config: BackboneConfig, spec: ModelSpec, pixels: FeatureTableConfig) -> Backbone:
    """Opens the extractor of a config, with its weights, for a model and the config of a pixel table.

    Raises:
        UsageError: The extractor does not exist, or the model cannot read its features.
        CaptError: The weights are not available.
    """
    if config.extractor == PIXELS:
        raise UsageError(
            "`pixels` stores pixels and has no features", location="extractor", hint="Choose a Keras model."
        )
    options = ExtractorOptions(
        extractor=config.extractor or "",
        weights=config.extractor_weights,
        layer=config.extractor_layer,
        preprocess=config.extractor_preprocess,
        pooling="none" if spec.spatial else "avg",
        height=pixels.height,
        width=pixels.width,
        storage_dtype="float32",
    )
    try:
        extractor = open_extractor(options)
        choice = {**asdict(extractor.resolve_config()), "pooling": options.pooling, "precision": "float32"}
        resizing = {name: getattr(pixels, name) for name in ("resize", "fit", "shorter_side")}
        table_config = FeatureTableConfig(**{**choice, **resizing})
        function = extractor.build_function(table_config)
    except UsageError as error:
        # Hyperparameters instead of command-line options.
        location, message, hint = _HYPERPARAMETERS.get(error.location, error.location), error.message, error.hint
        if error.location in ("--height", "--width", "--height, --width"):
            location, message = "extractor", f"{message}; the table's pixels are {pixels.height}×{pixels.width}"
            hint = "Run `capt prepare features … --extractor pixels --height N --width N`."
        raise UsageError(message, location=location, hint=hint) from None
    assert isinstance(function, ModelFunction)
    if not spec.fits(function.shape):
        required = f"{spec.name} requires {'spatial' if spec.spatial else 'pooled'} features"
        message = f"{required}, but the output of {table_config.layer} is {list(function.shape)}"
        raise UsageError(message, location="extractor_layer", hint="Choose another layer.")
    return Backbone(table_config, function)


@keras.saving.register_keras_serializable("capt")
class BackboneFeatures(FeatureNormalization):
    """Computes features from pixels with an extractor and standardizes them; replaces a model's `FeatureNormalization`.

    With mixed precision, the extractor computes in that precision, too. Batch normalization keeps its means and
    variances; its scale and offset are fine-tuned with the other weights.

    Args:
        function: The extractor; it reads pixels uint8 [N, height, width, 3].
        trainable_extractor: Whether the extractor is fine-tuned.
    """

    def __init__(self, function: ModelFunction, trainable_extractor: bool, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.network = function.model
        self.network.trainable = trainable_extractor
        if self.compute_dtype != "float32":
            for layer in _iterate_layers(self.network):
                layer.dtype_policy = self.dtype_policy
        self._function = function

    def fit(self, features: NDArray[Any]) -> None:
        """Measures the features of some images, given as pixels [N, height, width, 3]."""
        starts = range(0, len(features), _BATCH_SIZE)
        batches = [ops.convert_to_numpy(self._function(features[i : i + _BATCH_SIZE])) for i in starts]
        super().fit(np.concatenate(batches))

    def call(self, features: Any) -> Any:
        return super().call(ops.cast(self._function(features), self.compute_dtype))


def load_backbone(path: Path, table_config: FeatureTableConfig, trainable_extractor: bool) -> BackboneFeatures:
    """Creates the `feature_normalization` of a run on pixels, with random weights, from its `extractor.json`.

    Raises:
        CorruptFileError: The file is missing or corrupt.
        UsageError: The extractor is one of KerasHub, which is not installed.
    """
    register_layers(table_config.extractor)
    try:
        network = keras.saving.deserialize_keras_object(parse_json(path.read_bytes()), safe_mode=True)
        preprocessing, size = choose_input_preprocessing(table_config), (table_config.height, table_config.width)
        function = build_model_function(network, preprocessing, table_config.pooling, *size)
    except FileNotFoundError:
        raise CorruptFileError("the extractor's layers are missing", location=str(path)) from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CorruptFileError("the extractor's layers are corrupt", location=str(path)) from error
    return BackboneFeatures(function, trainable_extractor, name="feature_normalization")


def _iterate_layers(network: Any) -> Iterator[Any]:
    for layer in network.layers:
        yield layer
        if hasattr(layer, "layers"):
            yield from _iterate_layers(layer)
