"""Pixels: the resized image itself as its features, for networks that learn from images inside the model."""

from typing import Any

from features.extractors.extractor import ExtractorConfig, resolve_dtype
from features.extractors.output_layers import OUTPUT, FeatureFunction
from schemas.errors import UsageError
from schemas.options.extractor import ExtractorOptions
from schemas.table_config import FeatureTableConfig

NAME = "pixels"
_SIDE = 299


class PixelExtractor:
    """The extractor `pixels`: uint8 rows [height, width, 3], RGB 0…255.

    Args:
        asked: The options.

    Raises:
        UsageError: an option is given that pixels have no use for.
    """

    def __init__(self, asked: ExtractorOptions) -> None:
        self._asked = asked
        unwanted = {
            "--weights": asked.weights is not None,
            "--layer": asked.layer is not None,
            "--preprocess": asked.preprocess is not None,
            "--pooling": asked.pooling != "none",
            "--precision": asked.precision == "bfloat16",
        }
        for option, given in unwanted.items():
            if given:
                raise UsageError("pixels are no network, and have no use for it", location=option, hint="leave it out")
        resolve_dtype(asked, pixels=True)

    def choice(self) -> ExtractorConfig:
        """What the recipe records of it."""
        return ExtractorConfig(
            extractor=NAME,
            weights="none",
            layer=OUTPUT,
            height=self._asked.height or _SIDE,
            width=self._asked.width or _SIDE,
            dtype=resolve_dtype(self._asked, pixels=True),
            precision="float32",
        )

    def feature_function(self, table_config: FeatureTableConfig) -> FeatureFunction:
        """The function that gives pixels as they are; those that a resizing left between two numbers are rounded."""
        del table_config
        from features.runtime.keras_settings import ops

        def features(pixels: Any) -> Any:
            return pixels if pixels.dtype == "uint8" else ops.cast(ops.round(pixels), "uint8")

        return features
