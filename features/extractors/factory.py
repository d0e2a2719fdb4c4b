"""Creates the extractor that a command's options name."""

from features.extractors.custom import NAME as CUSTOM
from features.extractors.custom import PREFIX, PREPROCESSINGS, CustomExtractor
from features.extractors.extractor import Extractor
from features.extractors.keras_applications import KerasApplicationExtractor, find_network
from features.extractors.keras_hub import PREFIX as KERAS_HUB_PREFIX
from features.extractors.keras_hub import KerasHubExtractor
from features.extractors.output_layers import FeatureFunction
from features.extractors.pixels import NAME as PIXELS
from features.extractors.pixels import PixelExtractor
from features.extractors.registered_layers import KERAS_HUB
from features.extractors.rescaling import Rescaling
from features.extractors.scene_network import NAME as SCENE_NETWORK
from features.extractors.scene_network import SceneNetworkExtractor
from schemas.options.extractor import ExtractorOptions
from schemas.table_config import FeatureTableConfig


def open_extractor(options: ExtractorOptions) -> Extractor:
    """Returns the extractor that the options name.

    Raises:
        UsageError: The extractor is unknown, or does not support the options.
    """
    if options.extractor == PIXELS:
        return PixelExtractor(options)
    if options.extractor.startswith(PREFIX):
        return CustomExtractor(options)
    if options.extractor.startswith(KERAS_HUB_PREFIX):
        return KerasHubExtractor(options)
    if options.extractor == SCENE_NETWORK:
        return SceneNetworkExtractor(options)
    return KerasApplicationExtractor(options)


def choose_input_preprocessing(table_config: FeatureTableConfig) -> FeatureFunction:
    """Returns the input preprocessing of a table's extractor."""
    if table_config.extractor in (CUSTOM, SCENE_NETWORK):
        return PREPROCESSINGS[table_config.preprocess]()
    if table_config.extractor == KERAS_HUB:
        return Rescaling.parse(str(table_config.preprocess)).load_preprocessing()
    return find_network(table_config.extractor).load_preprocessing()
