"""Reads rows of features from arrays in NumPy's .npy format, without unpickling anything.

    [d] → [d]      [positions, d] → [positions, d]      [h, w, d] → [h · w, d]

A leading axis of length 1 (a batch of one image) is dropped. Format: `numpy.lib.format`.
"""

import io
import math
import tokenize
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from schemas.choices import StorageDtype
from schemas.errors import RecordError

_HEADER_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_PICKLE_START = b"\x80"
_PICKLE_SUFFIXES = (".pkl", ".pickle", ".joblib", ".pt", ".pth")
_MAX_ITEM_BYTES = 8  # of a float64

MAX_ARRAY_BYTES = 256 << 20  # of the array of one image
NPY_SUFFIX = ".npy"

PICKLE = "pickle"
PICKLE_PROBLEM = "a pickle can run code when it is opened, so capt does not open it"


@dataclass(frozen=True)
class NpyHeader:
    """The header of a .npy file. `offset` is the position of the first value."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_fortran_order: bool
    offset: int


def is_pickle_name(name: str) -> bool:
    """Returns whether a file is a pickle by its suffix."""
    return name.lower().endswith(_PICKLE_SUFFIXES)


def read_header(file: BinaryIO, label: str) -> NpyHeader:
    """Reads the header of a .npy file, which messages call `label`.

    Raises:
        RecordError: Stage `read`, reason `pickle` if the values are Python objects, else `not an array`.
    """
    try:
        shape, is_fortran_order, dtype = _HEADER_READERS[npy.read_magic(file)](file)
    except (ValueError, KeyError, EOFError, SyntaxError, TypeError, tokenize.TokenError) as error:
        file.seek(0)
        if file.read(1) == _PICKLE_START:
            raise RecordError("read", PICKLE, f"{label}: {PICKLE_PROBLEM}") from None
        raise RecordError("read", "not an array", f"{label}: not a .npy file: {error}") from None
    if dtype.hasobject:
        raise RecordError("read", PICKLE, f"{label} contains Python objects: {PICKLE_PROBLEM}")
    return NpyHeader(tuple(shape), dtype, bool(is_fortran_order), file.tell())


def check_floats(header: NpyHeader, label: str) -> None:
    """Raises RecordError (`not features`) if the values are not float16, float32 or float64."""
    if header.dtype.kind != "f" or header.dtype.itemsize > _MAX_ITEM_BYTES:
        raise RecordError("read", "not features", f"{label}: expected float16, float32 or float64, got {header.dtype}")


def check_rows(header: NpyHeader, label: str, size: int) -> None:
    """Checks the array of all images: a row per image, in a file of `size` bytes that is complete.

    Raises:
        RecordError: `not features`: there are no rows. `truncated`: the file is shorter than its header declares.
    """
    if len(header.shape) < 2 or header.shape[0] < 1:
        raise RecordError("read", "not features", f"{label}: expected [images, …, d], got {[*header.shape]}")
    declared = header.offset + math.prod(header.shape) * header.dtype.itemsize
    if size < declared:
        raise RecordError("read", "truncated", f"{label}: {size:,} bytes, and its header declares {declared:,}")


def compute_row_shape(shape: tuple[int, ...], label: str) -> tuple[int, ...]:
    """Returns the shape of the row that an array of one image gives: [d] or [positions, d].

    Raises:
        RecordError: `not features`: the array has no values, or not 1 to 3 axes.
    """
    inner = shape[1:] if len(shape) > 1 and shape[0] == 1 else shape
    if not 1 <= len(inner) <= 3 or min(inner) < 1:
        raise RecordError("read", "not features", f"{label}: expected [d], [positions, d] or [h, w, d], got {[*shape]}")
    return inner if len(inner) < 3 else (inner[0] * inner[1], inner[2])


def parse_array(data: bytes, label: str) -> NDArray[Any]:
    """Returns the array in the bytes of a .npy file.

    Raises:
        RecordError: Not a .npy file, a pickle, `truncated`, or not floats.
    """
    header = read_header(io.BytesIO(data), label)
    check_floats(header, label)
    count = math.prod(header.shape)
    if len(data) - header.offset < count * header.dtype.itemsize:
        raise RecordError("read", "truncated", f"{label}: expected {count} values of {header.dtype}")
    flat = np.frombuffer(data, header.dtype, count, header.offset)
    return flat.reshape(header.shape, order="F" if header.is_fortran_order else "C")


def to_row(array: NDArray[Any], shape: tuple[int, ...], dtype: StorageDtype, label: str) -> NDArray[Any]:
    """Returns the row of one image for `features.store.storage_dtypes.encode`: float16 if stored so, else float32.

    Raises:
        RecordError: `other shape`: the row does not have the shape of the table. `not finite`: a value is NaN or
            infinite. `overflow`: a value does not fit float32.
    """
    row_shape = compute_row_shape(array.shape, label)
    if row_shape != shape:
        raise RecordError("read", "other shape", f"{label}: a row of {[*row_shape]}, and most rows are {[*shape]}")
    if not np.isfinite(array).all():
        raise RecordError("store", "not finite", f"{label}: a value is NaN or infinite")
    with np.errstate(over="ignore"):
        row = np.ascontiguousarray(array.reshape(shape), np.float16 if dtype == "float16" else np.float32)
    if dtype != "float16" and not np.isfinite(row).all():
        raise RecordError("store", "overflow", f"{label}: a value does not fit float32")
    return row
