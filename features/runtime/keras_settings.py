"""Imports Keras with settings that neither a file nor an environment variable of the machine changes.

Every module takes `keras` and `ops` from here. `keras.json` names a number type, an epsilon, an image data format and a
backend; environment variables can end training early. Only `KERAS_BACKEND` is a supported choice.
"""

from typing import Any

from features.runtime.keras_backend import choose_backend
from schemas.errors import UsageError


def apply_settings() -> None:
    """Sets every setting of Keras that a result depends on."""
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")
    keras.config.set_max_epochs(None)
    keras.config.set_max_steps_per_epoch(None)


def _import_keras() -> Any:
    choose_backend()
    try:
        import keras
    except Exception as error:  # what a wrong value in keras.json raises has no class of its own
        raise UsageError(
            f"Keras cannot be imported: {error}",
            location="Keras",
            hint="check the file keras.json and the installation",
        ) from error
    return keras


keras = _import_keras()
ops = keras.ops
apply_settings()
