"""Decides which backend Keras computes on, before Keras or TensorFlow is imported."""

import importlib.util
import os

from schemas.errors import UsageError

VARIABLE = "KERAS_BACKEND"
BACKENDS = ("tensorflow", "jax", "torch")


def choose_backend() -> None:
    """Sets `KERAS_BACKEND` to TensorFlow if it is unset or empty, so that `keras.json` decides nothing.

    TensorFlow imports Keras, so a wrong value fails wherever TensorFlow is used.

    Raises:
        UsageError: capt does not support the backend, or its package is not installed.
    """
    backend = os.environ.get(VARIABLE) or BACKENDS[0]
    if backend not in BACKENDS:
        raise UsageError(
            f"capt does not support the backend {backend!r}",
            location=VARIABLE,
            hint=f"use one of {', '.join(BACKENDS)}",
        )
    if importlib.util.find_spec(backend) is None:
        raise UsageError(
            f"the package {backend!r} is not installed", location=VARIABLE, hint="install it, or unset the variable"
        )
    os.environ[VARIABLE] = backend
