"""Imports Keras with settings that are independent of the machine's files and environment variables.

Every module imports `keras` and `ops` from here. `keras.json` can change floatx, epsilon, data format and backend;
environment variables can stop training early. Only `KERAS_BACKEND` is supported.
"""

from collections.abc import Callable, Iterator, Sequence
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


def compile_function(function: Callable[..., Any], variables: Sequence[Any] = ()) -> Callable[..., Any]:
    """Returns the function as one compiled graph: for batches of any size on TensorFlow, once per size on JAX.

    JAX compiles constants, so `variables` lists every variable that the function reads; without them, and on PyTorch,
    the function is unchanged.
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        compiled: Callable[..., Any] = tf.function(function, reduce_retracing=True)
        return compiled
    if keras.backend.backend() != "jax" or not variables:
        return function
    import jax

    @jax.jit
    def run(values: Sequence[Any], *arguments: Any) -> Any:
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return function(*arguments)

    return lambda *arguments: run([variable.value for variable in variables], *arguments)


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
