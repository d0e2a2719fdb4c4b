"""Imports Keras with settings that neither a file nor an environment variable of the machine changes.

Every module takes `keras` and `ops` from here. `keras.json` names a number type, an epsilon, an image data format and a
backend; environment variables can end training early. Only `KERAS_BACKEND` is a supported choice.
"""

import importlib.util
import os
from typing import Any

from schemas.errors import UsageError

VARIABLE = "KERAS_BACKEND"
BACKENDS = ("tensorflow", "jax", "torch")


def chosen_backend() -> str:
    """Returns the backend that `KERAS_BACKEND` names, TensorFlow by default.

    Raises:
        UsageError: capt does not support the backend, or its package is not installed.
    """
    backend = os.environ.get(VARIABLE) or BACKENDS[0]
    if backend not in BACKENDS:
        raise UsageError(
            f"capt does not support the backend {backend!r}", where=VARIABLE, mend=f"use one of {', '.join(BACKENDS)}"
        )
    if importlib.util.find_spec(backend) is None:
        raise UsageError(
            f"the package {backend!r} is not installed", where=VARIABLE, mend="install it, or unset the variable"
        )
    return backend


def apply_settings() -> None:
    """Sets every setting of Keras that a result depends on."""
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")
    keras.config.set_max_epochs(None)
    keras.config.set_max_steps_per_epoch(None)


def _import_keras() -> Any:
    os.environ[VARIABLE] = chosen_backend()
    try:
        import keras
    except Exception as error:  # what a wrong value in keras.json raises has no class of its own
        raise UsageError(
            f"Keras cannot be imported: {error}", where="Keras", mend="check the file keras.json and the installation"
        ) from error
    return keras


keras = _import_keras()
ops = keras.ops
apply_settings()
