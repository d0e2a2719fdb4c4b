"""Implements extractors from a user's `.keras` file.

Keras loads the file in safe mode: it builds only its own layers and runs no code of the file.
"""

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

from features.extractors.extractor import ExtractorConfig, check_unchanged, resolve_dtype
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
_UNCHANGED = "none"


def _load_imagenet_preprocessing(mode: str) -> FeatureFunction:
    function = importlib.import_module("keras.applications.imagenet_utils").preprocess_input
    return lambda pixels: function(pixels, data_format="channels_last", mode=mode)


# Loaders of the input preprocessing of float pixels 0…255, by the value of `--preprocess`; None is `none`.
PREPROCESSINGS: dict[str | None, Callable[[], FeatureFunction]] = {
    None: lambda: lambda pixels: pixels,
    _UNCHANGED: lambda: lambda pixels: pixels,
    "unit": lambda: lambda pixels: pixels / 255.0,
    **{mode: partial(_load_imagenet_preprocessing, mode) for mode in ("tf", "caffe", "torch")},
}


class CustomExtractor:
    """The extractor `custom:FILE.keras`."""

    def __init__(self, options: ExtractorOptions) -> None:
        self._options = options
        self._path = local_path(options.extractor.removeprefix(PREFIX), "--extractor")
        if self._path.suffix != ".keras":
            hint = "Write one with model.save('my.keras')."
            raise UsageError("a custom extractor must be a .keras file", location=options.extractor, hint=hint)
        if not self._path.is_file():
            raise UsageError("the file does not exist", location=str(self._path))
        if options.weights is not None:
            raise UsageError("a custom extractor has its own weights", location="--weights", hint="Omit the option.")
        resolve_dtype(options, pixels=False)

    def resolve_config(self) -> ExtractorConfig:
        """Returns the settings for the table config, with the input size that the file fixes, if any."""
        weights = f"sha256:{hash_file(self._path)}"
        model = self._load()
        check_unchanged(weights, f"sha256:{hash_file(self._path)}", str(self._path))
        height, width = self._find_input_size(model)
        layer = self._options.layer or OUTPUT
        truncated = truncate_model(model, layer, self._path.name)
        build_model_function(truncated, PREPROCESSINGS[_UNCHANGED](), self._options.pooling, height, width)
        return ExtractorConfig(
            extractor=NAME,
            weights=weights,
            layer=layer,
            height=height,
            width=width,
            dtype=resolve_dtype(self._options, pixels=False),
            preprocess=self._options.preprocess or _UNCHANGED,
        )

    def build_function(self, table_config: FeatureTableConfig) -> ModelFunction:
        """Builds the model up to the table config's layer, after the table config's input preprocessing."""
        model = truncate_model(self._load(), table_config.layer, self._path.name)
        check_unchanged(table_config.weights, f"sha256:{hash_file(self._path)}", str(self._path))
        preprocess = PREPROCESSINGS[table_config.preprocess]()
        return build_model_function(model, preprocess, table_config.pooling, table_config.height, table_config.width)

    def _load(self) -> Any:
        from features.runtime.keras_settings import keras

        try:
            model = build_in_thread(lambda: keras.saving.load_model(self._path, compile=False, safe_mode=True))
        except Exception as error:  # Keras raises errors of many classes for untrusted files.
            message = f"Keras cannot load the model: {summarize_error(error)}"
            hint = "Use only Keras' own layers, without Lambda or custom classes."
            raise CaptError(message, location=str(self._path), hint=hint) from error
        if len(getattr(model, "inputs", None) or ()) != 1:
            message = "the model does not have exactly one input"
            raise UsageError(message, location=str(self._path), hint="Use one input [N, H, W, 3].")
        return model

    def _find_input_size(self, model: Any) -> tuple[int, int]:
        shape, given, path = tuple(model.inputs[0].shape), self._options, str(self._path)
        if len(shape) != 4 or shape[0] is not None or shape[3] != 3:
            raise UsageError(f"the model's input is {[*shape]}", location=path, hint="It must be [N, H, W, 3].")
        height, width = shape[1] or given.height, shape[2] or given.width
        if height is None or width is None:
            raise UsageError("the file does not fix the input size", location=path, hint="Add --height N --width N.")
        for option, fixed, value in (("--height", height, given.height), ("--width", width, given.width)):
            if value not in (None, fixed):
                raise UsageError(f"the model requires {fixed}, not {value}", location=option, hint="Omit the option.")
        return height, width
