"""Finds the backend of Keras that is used unless a user chooses one. `keras.json` has no effect."""

import importlib.util
from typing import get_args

from schemas.choices import Backend

BACKENDS: tuple[Backend, ...] = get_args(Backend)


def find_default_backend() -> Backend:
    """Returns the first of TensorFlow, JAX and PyTorch that is installed; TensorFlow if none is."""
    return next((backend for backend in BACKENDS if is_installed(backend)), BACKENDS[0])


def is_installed(backend: Backend) -> bool:
    """Returns whether the package of a backend is installed, without importing it."""
    return importlib.util.find_spec(backend) is not None
