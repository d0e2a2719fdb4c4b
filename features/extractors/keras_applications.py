"""Implements the extractors of `keras.applications`, and AlexNet."""

from features.extractors.alexnet import ALEXNET
from features.extractors.application import Application, find_application
from features.extractors.extractor import ExtractorConfig, resolve_dtype
from features.extractors.output_layers import (
    OUTPUT,
    ModelFunction,
    build_model_function,
    describe_unknown_layer,
    truncate_model,
)
from features.extractors.weights import IMAGENET, identify_weights, load_weights
from schemas.errors import UsageError
from schemas.options.extractor import ExtractorOptions
from schemas.table_config import FeatureTableConfig


class KerasApplicationExtractor:
    """A model of `keras.applications`, such as `inception_v3`, or `alexnet`, up to its output layer."""

    def __init__(self, options: ExtractorOptions) -> None:
        self._options = options
        self._application = find_network(options.extractor)
        self._layer = options.layer or self._application.layer
        self._build_options = self._application.resolve_build_options(self._layer, options.height, options.width)
        self._weights = options.weights or IMAGENET
        if options.preprocess is not None:
            message = f"{options.extractor} has its own preprocessing"
            raise UsageError(message, location="--preprocess", hint="Omit the option.")
        resolve_dtype(options, pixels=False)

    def resolve_config(self) -> ExtractorConfig:
        """Returns the settings for the table config."""
        return ExtractorConfig(
            extractor=self._application.name,
            weights=identify_weights(self._weights, self._application, self._build_options),
            layer=self._layer,
            height=self._build_options.height,
            width=self._build_options.width,
            dtype=resolve_dtype(self._options, pixels=False),
        )

    def build_function(self, table_config: FeatureTableConfig) -> ModelFunction:
        """Builds the model up to the table config's layer, after its own input preprocessing."""
        application, options = self._application, self._build_options
        model = application.build(options)
        names = [layer.name for layer in model.layers]
        if table_config.layer not in (OUTPUT, *names):
            raise describe_unknown_layer(table_config.layer, [*names, *application.top_layers], application.name)
        model = load_weights(model, self._weights, application, options)
        model = truncate_model(model, table_config.layer, application.name)
        preprocess = application.load_preprocessing()
        return build_model_function(model, preprocess, table_config.pooling, options.height, options.width)


def find_network(name: str) -> Application:
    """Returns `alexnet`, or the model of `keras.applications` with this name; UsageError if the name is unknown."""
    return ALEXNET if name == ALEXNET.name else find_application(name)
