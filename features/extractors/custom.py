"""A network of the user's own: a `.keras` file, loaded in safe mode, as an extractor.

Safe mode builds the layers that Keras knows and nothing else: no Lambda, no class that the file names, no code.
"""

import importlib
from collections.abc import Callable
from typing import Any

from features.extractors.extractor import ExtractorConfig, resolve_dtype
from features.extractors.output_layers import (
    OUTPUT,
    FeatureFunction,
    ModelFunction,
    build_in_thread,
    build_model_function,
    summarize_error,
    truncate_model,
)
from features.io.atomic_files import hash_file
from features.io.locations import local_path
from schemas.errors import CaptError, UsageError
from schemas.options.extractor import ExtractorOptions
from schemas.table_config import FeatureTableConfig

NAME = "custom"
PREFIX = f"{NAME}:"
_PLAIN = "none"


def _imagenet_mode(mode: str) -> Callable[[], FeatureFunction]:
    def load() -> FeatureFunction:
        function = importlib.import_module("keras.applications.imagenet_utils").preprocess_input
        return lambda pixels: function(pixels, data_format="channels_last", mode=mode)

    return load


# How float pixels 0…255 are scaled, by the name that `--preprocess` gives it.
PREPROCESSINGS: dict[str, Callable[[], FeatureFunction]] = {
    _PLAIN: lambda: lambda pixels: pixels,
    "unit": lambda: lambda pixels: pixels / 255.0,
    "tf": _imagenet_mode("tf"),
    "caffe": _imagenet_mode("caffe"),
    "torch": _imagenet_mode("torch"),
}


def build_preprocessing(table_config: FeatureTableConfig) -> FeatureFunction:
    """How a recipe of a custom network scales float pixels 0…255."""
    return PREPROCESSINGS[table_config.preprocess or _PLAIN]()


class CustomExtractor:
    """The extractor `custom:FILE.keras`.

    Args:
        asked: The options.

    Raises:
        UsageError: there is no such file, or an option is given that it has no use for.
    """

    def __init__(self, asked: ExtractorOptions) -> None:
        self._asked = asked
        self._path = local_path(asked.extractor.removeprefix(PREFIX), "--extractor")
        if self._path.suffix != ".keras":
            raise UsageError(
                "a custom network is a .keras file", location=asked.extractor, hint="model.save('my.keras')"
            )
        if not self._path.is_file():
            raise UsageError("no such file", location=str(self._path))
        if asked.weights is not None:
            raise UsageError("a custom network has its own weights", location="--weights", hint="leave it out")
        if asked.preprocess is not None and asked.preprocess not in PREPROCESSINGS:
            raise UsageError(
                f"unknown scaling {asked.preprocess!r}",
                location="--preprocess",
                hint=f"use one of {', '.join(PREPROCESSINGS)}",
            )
        resolve_dtype(asked, pixels=False)

    def choice(self) -> ExtractorConfig:
        """What the recipe records of it, the input size read off the file."""
        model = self._load()
        height, width = self._size(model)
        layer = self._asked.layer or OUTPUT
        kept = truncate_model(model, layer, self._path.name)
        build_model_function(kept, PREPROCESSINGS[_PLAIN](), self._asked.pooling, height, width)
        return ExtractorConfig(
            extractor=NAME,
            weights=f"sha256:{hash_file(self._path)}",
            layer=layer,
            height=height,
            width=width,
            dtype=resolve_dtype(self._asked, pixels=False),
            preprocess=self._asked.preprocess or _PLAIN,
        )

    def feature_function(self, table_config: FeatureTableConfig) -> ModelFunction:
        """The network up to the recipe's layer, after the recipe's scaling."""
        kept = truncate_model(self._load(), table_config.layer, self._path.name)
        return build_model_function(
            kept, build_preprocessing(table_config), table_config.pooling, table_config.height, table_config.width
        )

    def _load(self) -> Any:
        from features.runtime.keras_settings import keras

        def load() -> Any:
            return keras.saving.load_model(self._path, compile=False, safe_mode=True)

        try:
            model = build_in_thread(load)
        except Exception as error:  # whatever a file of unknown origin makes Keras raise
            raise CaptError(
                f"Keras does not load the network: {summarize_error(error)}",
                location=str(self._path),
                hint="a .keras file of Keras' own layers, without Lambda or classes of your own, is loaded",
            ) from error
        if len(getattr(model, "inputs", None) or ()) != 1:
            raise UsageError("the network has no one input", location=str(self._path), hint="it takes [N, H, W, 3]")
        return model

    def _size(self, model: Any) -> tuple[int, int]:
        shape = tuple(model.inputs[0].shape)
        if len(shape) != 4 or shape[0] is not None or shape[3] != 3:
            raise UsageError(
                f"the network takes {[*shape]}", location=str(self._path), hint="it must take [N, H, W, 3]"
            )
        height, width = shape[1] or self._asked.height, shape[2] or self._asked.width
        if height is None or width is None:
            raise UsageError(
                "the file leaves the input size open", location=str(self._path), hint="give --height N --width N"
            )
        for option, fixed, asked in (("--height", height, self._asked.height), ("--width", width, self._asked.width)):
            if asked not in (None, fixed):
                raise UsageError(f"the network takes {fixed}, not {asked}", location=option, hint="leave it out")
        return height, width
