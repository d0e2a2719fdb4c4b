"""Converts features between the extractor's float32 and the storage dtype of a row.

float32 [locations…, channels] → encode → columns {"value"[, "scale"]} → decode → float
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

_FLOAT16_INFINITY = 0x7C00


def encode(features: NDArray[Any], dtype: StorageDtype) -> StoredColumns:
    """Returns the columns that store one image's features.

    Args:
        features: float32 array [..., channels]. For `uint8`, integers from 0 to 255 in any dtype. For `float16`, also
            a float16 array, with infinity for a value that did not fit.
        dtype: The storage dtype. `int8` is symmetric with one scale per location (all values on the last axis).

    Raises:
        RecordError: A value is NaN or infinite, or does not fit the storage dtype.
    """
    if features.dtype == np.float16 and dtype == "float16":
        return _encode_float16(features)
    peak = np.abs(features).max()  # NaN if any value is NaN
    if not np.isfinite(peak):
        raise RecordError("store", "not finite", "the extractor returned NaN or infinity")
    if dtype == "int8":
        return _encode_int8(features)
    stored = _to_numpy_dtype(dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        value = _float16_cast()(features) if dtype == "float16" else features.astype(stored)
        fits = np.isfinite(peak.astype(stored))  # rounding is monotonic: if the peak fits, all values fit
    if not fits:
        detail = f"a value of {peak:.6g} does not fit {dtype}; use --storage-dtype float32"
        raise RecordError("store", "overflow", detail)
    if dtype == "uint8" and not np.array_equal(value, features):
        raise RecordError("store", "overflow", "a value is not an integer from 0 to 255, as uint8 requires")
    return {"value": value}


@cache
def _to_numpy_dtype(dtype: StorageDtype) -> np.dtype[Any]:
    return features_table((1, 1), dtype).field("value").numpy_dtype


def _encode_float16(features: NDArray[np.float16]) -> StoredColumns:
    # Magnitudes are ordered like their bits; NaN is above infinity.
    largest = (features.view(np.uint16) & 0x7FFF).max()
    if largest > _FLOAT16_INFINITY:
        raise RecordError("store", "not finite", "the extractor returned NaN")
    if largest == _FLOAT16_INFINITY:
        detail = "a value is infinite or does not fit float16; use --storage-dtype float32"
        raise RecordError("store", "overflow", detail)
    return {"value": features}


@cache
def _float16_cast() -> Callable[[NDArray[Any]], NDArray[np.float16]]:
    """Returns a function that rounds float32 to float16. TensorFlow's is seven times faster and bit-identical."""
    if find_spec("tensorflow") is None:
        return lambda features: features.astype(np.float16)
    import tensorflow as tf

    def cast(features: NDArray[Any]) -> NDArray[np.float16]:
        with tf.device("CPU"):
            rounded: NDArray[np.float16] = tf.cast(features, tf.float16).numpy()
        return rounded

    return cast


def _encode_int8(features: NDArray[np.float32 | np.uint8]) -> StoredColumns:
    peak = np.abs(features).max(axis=-1)
    scale = (peak / np.float32(127)).astype(np.float32)
    # Subnormal numbers are far apart, so the one nearest to peak / 127 may be much too small, or zero.
    scale = np.where(peak > np.float64(127.5) * scale, np.nextafter(scale, np.float32(np.inf)), scale)
    divisor = np.where(scale > 0, scale, np.float32(1))[..., np.newaxis]
    return {"value": np.rint(features / divisor).astype(np.int8), "scale": scale}


def decode(stored: Mapping[str, NDArray[np.generic]]) -> NDArray[np.generic]:
    """Returns the features from the columns of `encode`, of one image or a batch; int8 becomes float32."""
    if "scale" in stored:
        value, scale = stored["value"], stored["scale"].astype(np.float32)[..., np.newaxis]
        features: NDArray[np.generic] = empty_aligned(value.shape, np.float32)
        np.multiply(value, scale, out=features, dtype=np.float32)
        return features
    return stored["value"]
