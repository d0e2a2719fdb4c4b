"""Storage dtypes: features as the network gives them, and as a row keeps them.

float32 [places…, channels] → encode → stored {"value"[, "scale"]} → decode → float
uint8 pixels [height, width, 3] → encode → the same → decode → the same
"""

from collections.abc import Callable, Mapping
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.runtime.aligned_arrays import empty_aligned
from schemas.choices import StorageDtype
from schemas.errors import RecordError
from schemas.tables import features_table

StoredColumns = dict[str, NDArray[np.generic]]

_INFINITE_HALF = 0x7C00


def encode(features: NDArray[Any], dtype: StorageDtype) -> StoredColumns:
    """The columns that keep one image's features.

    Args:
        features: float32 array [..., channels]; for `uint8`, whole numbers 0…255 of any dtype; for `float16`, float16
            too, with infinity where a value did not fit.
        dtype: str. Storage dtype. `int8` is symmetric with one scale a place (the last axis shares it).

    Raises:
        RecordError: a value is NaN or infinite, or overflows the storage dtype.
    """
    if features.dtype == np.float16 and dtype == "float16":
        return _encode_halves(features)
    peak = np.abs(features).max()  # NaN where there is one
    if not np.isfinite(peak):
        raise RecordError("store", "not finite", "the network gave NaN or infinity")
    if dtype == "int8":
        return _encode_int8(features)
    stored = _numpy_dtype(dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        value = _halves()(features) if dtype == "float16" else features.astype(stored)
        fits = np.isfinite(peak.astype(stored))  # rounding keeps order, so that the others fit where the peak does
    if not fits:
        raise RecordError(
            "store", "overflow", f"a value of {peak:.6g} does not fit {dtype}; use --storage-dtype float32"
        )
    if dtype == "uint8" and not np.array_equal(value, features):
        raise RecordError("store", "overflow", "a value is no whole number 0…255, which uint8 keeps")
    return {"value": value}


@cache
def _numpy_dtype(dtype: StorageDtype) -> np.dtype[Any]:
    return features_table((1, 1), dtype).field("value").numpy_dtype


def _encode_halves(features: NDArray[np.float16]) -> StoredColumns:
    largest = (features.view(np.uint16) & 0x7FFF).max()  # magnitudes are ordered as their bits, NaN beyond infinity
    if largest > _INFINITE_HALF:
        raise RecordError("store", "not finite", "the network gave NaN")
    if largest == _INFINITE_HALF:
        raise RecordError(
            "store", "overflow", "a value is infinite or does not fit float16; use --storage-dtype float32"
        )
    return {"value": features}


@cache
def _halves() -> Callable[[NDArray[Any]], NDArray[np.float16]]:
    """How float32 is rounded to float16: by TensorFlow where there is one, seven times as fast and to the same bits."""
    if find_spec("tensorflow") is None:
        return lambda features: features.astype(np.float16)
    import tensorflow as tf

    def cast(features: NDArray[Any]) -> NDArray[np.float16]:
        with tf.device("CPU"):
            halves: NDArray[np.float16] = tf.cast(features, tf.float16).numpy()
        return halves

    return cast


def _encode_int8(features: NDArray[np.float32 | np.uint8]) -> StoredColumns:
    peak = np.abs(features).max(axis=-1)
    scale = (peak / np.float32(127)).astype(np.float32)
    # Subnormal numbers are so far apart that the nearest one to a 127th of the peak may be much too small, or zero.
    scale = np.where(peak > np.float64(127.5) * scale, np.nextafter(scale, np.float32(np.inf)), scale)
    divisor = np.where(scale > 0, scale, np.float32(1))[..., np.newaxis]
    return {"value": np.rint(features / divisor).astype(np.int8), "scale": scale}


def decode(stored: Mapping[str, NDArray[np.generic]]) -> NDArray[np.generic]:
    """Features from the columns of `encode`, one image or a batch of them; as stored, but int8 as float32."""
    if "scale" in stored:
        value, scale = stored["value"], stored["scale"].astype(np.float32)[..., np.newaxis]
        features: NDArray[np.generic] = empty_aligned(value.shape, np.float32)
        np.multiply(value, scale, out=features, dtype=np.float32)
        return features
    return stored["value"]
