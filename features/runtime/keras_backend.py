"""Selects the Keras backend, and checks how GPU memory is reserved, before Keras or TensorFlow is imported."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from features.runtime.gpu_memory import check_gpu_memory
from schemas.choices import Backend
from schemas.default_backend import BACKENDS, find_default_backend, is_installed
from schemas.errors import UsageError

VARIABLE = "KERAS_BACKEND"
OPTION = "--backend"


def choose_backend() -> None:
    """Sets `KERAS_BACKEND` to the default backend if it is unset or empty, so that `keras.json` has no effect.

    Raises:
        UsageError: The backend is not supported, its package is not installed, Keras already runs on another backend
            in this process, or `CAPT_GPU_MEMORY` is invalid.
    """
    _choose(get_backend(), VARIABLE)


def select_backend(backend: Backend | None) -> None:
    """Makes `backend` the backend of this process, whatever `KERAS_BACKEND` is. None selects as `choose_backend`.

    Raises:
        UsageError: As `choose_backend`.
    """
    if backend is None:
        choose_backend()
    else:
        _choose(backend, OPTION)


@contextmanager
def use_backend(backend: Backend | None) -> Iterator[None]:
    """Selects a backend as `select_backend` for the block. Afterwards, `KERAS_BACKEND` is what it was.

    Keras keeps the backend that it was started on, so if the block starts it, `KERAS_BACKEND` stays that backend.
    """
    before, was_running = os.environ.get(VARIABLE), _find_running() is not None
    select_backend(backend)
    try:
        yield
    finally:
        if was_running or _find_running() is None:
            _restore(before)


def _restore(backend: str | None) -> None:
    if backend is None:
        os.environ.pop(VARIABLE, None)
    else:
        os.environ[VARIABLE] = backend


def check_backend(backend: Backend | None) -> None:
    """Raises UsageError if `backend`, an option of a step of a workflow, is not the backend of the process."""
    if backend not in (None, get_backend()):
        message = f"the process runs on {get_backend()}, and a step of it cannot run on {backend}"
        raise UsageError(message, location=OPTION, hint=f"Set {VARIABLE}={backend} for the whole workflow.")


def get_backend() -> Backend:
    """Returns the backend of `KERAS_BACKEND`, or the default backend; UsageError if capt does not support it."""
    name = os.environ.get(VARIABLE) or find_default_backend()
    backend = next((backend for backend in BACKENDS if backend == name), None)
    if backend is None:
        hint = f"Use one of {', '.join(BACKENDS)}."
        raise UsageError(f"capt does not support the backend {name!r}", location=VARIABLE, hint=hint)
    return backend


def _choose(backend: Backend, source: str) -> None:
    """Sets `KERAS_BACKEND` to a backend that `source`, the option or the variable, names."""
    check_gpu_memory()
    if not is_installed(backend):
        hint = f"Install it, or {'choose another backend' if source == OPTION else 'unset the variable'}."
        raise UsageError(f"the package {backend!r} is not installed", location=source, hint=hint)
    running = _find_running()
    if running not in (None, backend):
        message = f"this process has started Keras on {running}, not on {backend}"
        hint = f"Use one backend per process: start another process with {VARIABLE}={backend}."
        raise UsageError(message, location=source, hint=hint)
    os.environ[VARIABLE] = backend


def _find_running() -> str | None:
    """Returns the backend on which this process has started Keras, without importing it."""
    backend: Any = getattr(sys.modules.get("keras"), "backend", None)
    return backend and str(backend.backend())
