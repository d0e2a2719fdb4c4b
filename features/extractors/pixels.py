"""Implements the extractor `pixels`, which stores the resized image for models that contain their own backbone."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.extractors.extractor import ExtractorConfig, resolve_dtype
from features.extractors.output_layers import OUTPUT, FeatureFunction
from features.images.resize import Pixels
from features.runtime.numerics import detect_cpu
from schemas.errors import UsageError
from schemas.options.extractor import ExtractorOptions
from schemas.table_config import FeatureTableConfig

NAME = "pixels"
# Numerics class: rows depend on no device and no backend.
NUMERICS = "pixels"
_SIDE = 299


class PixelExtractor:
    """The extractor `pixels`: rows of uint8 [height, width, 3], RGB 0…255."""

    def __init__(self, options: ExtractorOptions) -> None:
        self._options = options
        inapplicable = {
            "--weights": options.weights is not None,
            "--layer": options.layer is not None,
            "--preprocess": options.preprocess is not None,
            "--pooling": options.pooling != "none",
            "--precision": options.precision in ("bfloat16", "int8"),
        }
        for option, is_given in inapplicable.items():
            if is_given:
                raise UsageError("the option does not apply to pixels", location=option, hint="Omit the option.")
        resolve_dtype(options, pixels=True)

    def resolve_config(self) -> ExtractorConfig:
        """Returns the settings for the table config."""
        return ExtractorConfig(
            extractor=NAME,
            weights="none",
            layer=OUTPUT,
            height=self._options.height or _SIDE,
            width=self._options.width or _SIDE,
            dtype=resolve_dtype(self._options, pixels=True),
            precision="float32",
        )

    def build_function(self, table_config: FeatureTableConfig) -> FeatureFunction:
        """Returns `build_pixel_function`."""
        return build_pixel_function()


def build_pixel_function() -> FeatureFunction:
    """Returns a function that returns uint8 pixels unchanged and rounds float32 pixels."""
    from features.runtime.keras_settings import ops

    return lambda pixels: pixels if pixels.dtype == "uint8" else ops.cast(ops.round(pixels), "uint8")


class PixelModel:
    """The same function in NumPy, for every backend. `shape` is that of one image's pixels."""

    parallel_calls = 1
    numerics = NUMERICS

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.device = detect_cpu()
        self.shape = shape

    def predict(self, pixels: Pixels) -> NDArray[Any]:
        """Returns uint8 pixels [N, H, W, 3] of pixels of any dtype."""
        return pixels if pixels.dtype == np.uint8 else np.rint(pixels).astype(np.uint8)
