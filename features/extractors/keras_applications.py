"""A network of `keras.applications` as an extractor."""

from features.extractors.application import find_application
from features.extractors.extractor import ExtractorConfig, resolve_dtype
from features.extractors.output_layers import (
    OUTPUT,
    ModelFunction,
    build_model_function,
    describe_unknown_layer,
    truncate_model,
)
from features.extractors.weights import identify_weights, load_weights
from schemas.errors import UsageError
from schemas.options.extractor import ExtractorOptions
from schemas.table_config import FeatureTableConfig

_WEIGHTS = "imagenet"


class KerasApplicationExtractor:
    """The extractor of a name such as `inception_v3`.

    Args:
        asked: The options.

    Raises:
        UsageError: there is no such network, or it cannot do what is asked.
    """

    def __init__(self, asked: ExtractorOptions) -> None:
        self._asked = asked
        self._network = find_application(asked.extractor)
        self._layer = asked.layer or self._network.layer
        self._form = self._network.form(self._layer, asked.height, asked.width)
        self._weights = asked.weights or _WEIGHTS
        if asked.preprocess is not None:
            raise UsageError(f"{asked.extractor} has its own scaling", location="--preprocess", hint="leave it out")
        resolve_dtype(asked, pixels=False)

    def choice(self) -> ExtractorConfig:
        """What the recipe records of it."""
        return ExtractorConfig(
            extractor=self._network.name,
            weights=identify_weights(self._weights, self._network, self._form),
            layer=self._layer,
            height=self._form.height,
            width=self._form.width,
            dtype=resolve_dtype(self._asked, pixels=False),
        )

    def feature_function(self, table_config: FeatureTableConfig) -> ModelFunction:
        """The network up to the recipe's layer, after its own scaling."""
        network, form = self._network, self._form
        model = network.build(form)
        names = [layer.name for layer in model.layers]
        if table_config.layer not in (OUTPUT, *names):
            raise describe_unknown_layer(table_config.layer, [*names, *network.top_layers], network.name)
        kept = truncate_model(load_weights(model, self._weights, network, form), table_config.layer, network.name)
        return build_model_function(kept, network.preprocess(), table_config.pooling, form.height, form.width)
