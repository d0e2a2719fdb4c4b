"""Imports Keras with settings that are independent of the machine's files and environment variables.

Every module imports `keras` and `ops` from here. `keras.json` can change floatx, epsilon, data format and backend;
environment variables can stop training early. Only `KERAS_BACKEND` is supported.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from features.runtime.keras_backend import choose_backend
from schemas.errors import UsageError


def apply_settings() -> None:
    """Sets every Keras setting that affects results."""
    keras.config.set_floatx("float32")
    keras.config.set_epsilon(1e-7)
    keras.config.set_image_data_format("channels_last")
    keras.config.set_max_epochs(None)
    keras.config.set_max_steps_per_epoch(None)


def compile_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function as one compiled graph for batches of any size on TensorFlow; unchanged on other backends."""
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    compiled: Callable[..., Any] = tf.function(function, reduce_retracing=True)
    return compiled


@contextmanager
def compute_in(precision: str) -> Iterator[None]:
    """Creates layers inside the context that compute in a Keras dtype policy; their weights stay float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def _import_keras() -> Any:
    choose_backend()
    try:
        import keras
    except Exception as error:  # Keras raises errors of many classes for invalid values in keras.json.
        hint = "Check the file keras.json and the installation."
        raise UsageError(f"Keras cannot be imported: {error}", location="Keras", hint=hint) from error
    return keras


keras = _import_keras()
ops = keras.ops
apply_settings()
