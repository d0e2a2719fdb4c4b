"""Devices: one, or all of them, each with a copy of the model and a part of every batch."""

import contextlib
from contextlib import AbstractContextManager

from features.runtime.keras_settings import keras
from schemas.errors import UsageError


def device_scope(devices: str) -> AbstractContextManager[object]:
    """A block within which models are made for these devices, and trained on them.

    Args:
        devices: str. `one`, or `all`: batches are spread over all devices by Keras' distribution, which the JAX
            backend has.

    Raises:
        UsageError: the backend spreads nothing.
    """
    if devices == "one":
        return contextlib.nullcontext()
    if keras.backend.backend() != "jax":
        raise UsageError(
            f"Keras does not spread batches over devices on {keras.backend.backend()}",
            location="devices: all",
            hint="set KERAS_BACKEND=jax, or devices: one",
        )
    distribution: AbstractContextManager[object] = keras.distribution.DataParallel(auto_shard_dataset=False).scope()
    return distribution
