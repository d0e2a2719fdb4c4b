"""Registers the layers that the file of an extractor can name beside Keras' own: those of capt and of KerasHub."""

import importlib.util

from schemas.errors import UsageError

KERAS_HUB = "keras_hub"


def register_layers(extractor: str) -> None:
    """Registers the layers of an extractor, given by its name in a table config.

    Raises:
        UsageError: They are those of KerasHub, which is not installed.
    """
    from features.extractors import alexnet_layers, token_layers  # noqa: F401 (registers them, and imports Keras)

    if extractor == KERAS_HUB:
        check_keras_hub()
        importlib.import_module(KERAS_HUB)


def check_keras_hub() -> None:
    """Raises UsageError if KerasHub is not installed; imports nothing."""
    if importlib.util.find_spec(KERAS_HUB) is None:
        hint = "Run `pip install 'capt[keras_hub]'`."
        raise UsageError("the package 'keras-hub' is not installed", location="--extractor keras_hub:", hint=hint)
