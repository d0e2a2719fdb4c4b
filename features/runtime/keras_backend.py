"""Selects the Keras backend, and checks how GPU memory is reserved, before Keras or TensorFlow is imported."""

import importlib.util
import os

from features.runtime.gpu_memory import check_gpu_memory
from schemas.errors import UsageError

VARIABLE = "KERAS_BACKEND"
BACKENDS = ("tensorflow", "jax", "torch")


def choose_backend() -> None:
    """Sets `KERAS_BACKEND` to TensorFlow if it is unset or empty, so that `keras.json` has no effect.

    Raises:
        UsageError: The backend is not supported, its package is not installed, or `CAPT_GPU_MEMORY` is invalid.
    """
    check_gpu_memory()
    backend = os.environ.get(VARIABLE) or BACKENDS[0]
    if backend not in BACKENDS:
        hint = f"Use one of {', '.join(BACKENDS)}."
        raise UsageError(f"capt does not support the backend {backend!r}", location=VARIABLE, hint=hint)
    if importlib.util.find_spec(backend) is None:
        hint = "Install it, or unset the variable."
        raise UsageError(f"the package {backend!r} is not installed", location=VARIABLE, hint=hint)
    os.environ[VARIABLE] = backend
