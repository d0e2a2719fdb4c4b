"""From what a command asks to the extractor that answers."""

from features.extractors.applications import application
from features.extractors.choice import Extractor
from features.extractors.custom import NAME as CUSTOM
from features.extractors.custom import PREFIX, CustomNetwork, scaling
from features.extractors.layers import FeatureFunction
from features.extractors.named import NamedNetwork
from features.extractors.pixels import NAME as PIXELS
from features.extractors.pixels import Pixels
from schemas.options.extractor import ExtractorOptions
from schemas.recipes import FeatureRecipe


def open_extractor(asked: ExtractorOptions) -> Extractor:
    """The extractor that a command asks for.

    Args:
        asked: The options.

    Raises:
        UsageError: there is no such extractor, or it cannot do what is asked.
    """
    if asked.extractor == PIXELS:
        return Pixels(asked)
    if asked.extractor.startswith(PREFIX):
        return CustomNetwork(asked)
    return NamedNetwork(asked)


def scaling_of(recipe: FeatureRecipe) -> FeatureFunction:
    """How a recipe's network wants its pixels scaled."""
    return scaling(recipe) if recipe.extractor == CUSTOM else application(recipe.extractor).preprocess()
