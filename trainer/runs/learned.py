"""Stores the content keys of the images that a run was trained on, so that an evaluation counts those it scores.

A run that starts from the weights of another was trained on the images of the other as well.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.files import write
from schemas.errors import DamagedError
from schemas.tables import KEY_BYTES

LEARNED = "learned.keys"


def write_learned(root: Path, keys: NDArray[np.uint8]) -> None:
    """Write the images that a run learned from, each once, in order.

    Args:
        root: The run directory.
        keys: Their content keys, uint8 [N, 32].
    """
    write(root / LEARNED, np.unique(keys, axis=0).tobytes())


def read_learned(root: Path) -> NDArray[np.uint8]:
    """Returns the content keys of the images that a run learned from, uint8 [N, 32].

    Args:
        root: The run directory.

    Raises:
        DamagedError: The file is missing or cut short.
    """
    path = root / LEARNED
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DamagedError("the list of the images that the run learned from is missing", where=str(path)) from None
    if not data or len(data) % KEY_BYTES:
        raise DamagedError(f"damaged: {len(data)} bytes are no list of keys", where=str(path))
    return np.frombuffer(data, np.uint8).reshape(-1, KEY_BYTES)
