"""Selects the Keras backend, and checks how GPU memory is reserved, before Keras or TensorFlow is imported."""

import os
import sys

from features.runtime.gpu_memory import check_gpu_memory
from schemas.choices import Backend
from schemas.default_backend import BACKENDS, find_default_backend, is_installed
from schemas.errors import UsageError

VARIABLE = "KERAS_BACKEND"
OPTION = "--backend"


def choose_backend() -> None:
    """Sets `KERAS_BACKEND` to the default backend if it is unset or empty, so that `keras.json` has no effect.

    Raises:
        UsageError: The backend is not supported, its package is not installed, or `CAPT_GPU_MEMORY` is invalid.
    """
    check_gpu_memory()
    backend = get_backend()
    if not is_installed(backend):
        hint = "Install it, or unset the variable."
        raise UsageError(f"the package {backend!r} is not installed", location=VARIABLE, hint=hint)
    os.environ[VARIABLE] = backend


def select_backend(backend: Backend | None) -> Backend:
    """Makes `backend` the backend of this process, and returns it. None keeps the one of `KERAS_BACKEND`.

    Raises:
        UsageError: As `choose_backend`, or Keras already runs on another backend in this process.
    """
    if backend is not None:
        if not is_installed(backend):
            hint = "Install it, or choose another backend."
            raise UsageError(f"the package {backend!r} is not installed", location=OPTION, hint=hint)
        keras = sys.modules.get("keras")
        if keras is not None and keras.backend.backend() != backend:
            message = f"this process has started Keras on {keras.backend.backend()}, not on {backend}"
            hint = f"Use one backend per process: set {VARIABLE}={backend} before the start."
            raise UsageError(message, location=OPTION, hint=hint)
        os.environ[VARIABLE] = backend
    choose_backend()
    return get_backend()


def get_backend() -> Backend:
    """Returns the backend of `KERAS_BACKEND`, or the default backend; UsageError if capt does not support it."""
    name = os.environ.get(VARIABLE) or find_default_backend()
    backend = next((backend for backend in BACKENDS if backend == name), None)
    if backend is None:
        hint = f"Use one of {', '.join(BACKENDS)}."
        raise UsageError(f"capt does not support the backend {name!r}", location=VARIABLE, hint=hint)
    return backend
