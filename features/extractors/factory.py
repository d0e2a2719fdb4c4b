"""From what a command asks to the extractor that answers."""

from features.extractors.application import find_application
from features.extractors.custom import NAME as CUSTOM
from features.extractors.custom import PREFIX, CustomExtractor, build_preprocessing
from features.extractors.extractor import Extractor
from features.extractors.keras_applications import KerasApplicationExtractor
from features.extractors.output_layers import FeatureFunction
from features.extractors.pixels import NAME as PIXELS
from features.extractors.pixels import PixelExtractor
from schemas.options.extractor import ExtractorOptions
from schemas.table_config import FeatureTableConfig


def open_extractor(asked: ExtractorOptions) -> Extractor:
    """The extractor that a command asks for.

    Args:
        asked: The options.

    Raises:
        UsageError: there is no such extractor, or it cannot do what is asked.
    """
    if asked.extractor == PIXELS:
        return PixelExtractor(asked)
    if asked.extractor.startswith(PREFIX):
        return CustomExtractor(asked)
    return KerasApplicationExtractor(asked)


def choose_input_preprocessing(table_config: FeatureTableConfig) -> FeatureFunction:
    """How a recipe's network wants its pixels scaled."""
    return (
        build_preprocessing(table_config)
        if table_config.extractor == CUSTOM
        else find_application(table_config.extractor).preprocess()
    )
