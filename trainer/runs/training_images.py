"""Stores the content keys of the images that a run was trained on, so that an evaluation counts those it scores.

A run that starts from the weights of another was trained on the images of the other as well.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from features.io.atomic_files import write
from schemas.errors import CorruptFileError
from schemas.tables import KEY_BYTES

TRAINING_IMAGES = "learned.keys"


def write_training_images(root: Path, keys: NDArray[np.uint8]) -> None:
    """Write the images that a run learned from, each once, in order.

    Args:
        root: The run directory.
        keys: Their content keys, uint8 [N, 32].
    """
    write(root / TRAINING_IMAGES, np.unique(keys, axis=0).tobytes())


def read_training_images(root: Path) -> NDArray[np.uint8]:
    """Returns the content keys of the images that a run learned from, uint8 [N, 32].

    Args:
        root: The run directory.

    Raises:
        CorruptFileError: The file is missing or cut short.
    """
    path = root / TRAINING_IMAGES
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise CorruptFileError(
            "the list of the images that the run learned from is missing", location=str(path)
        ) from None
    if not data or len(data) % KEY_BYTES:
        raise CorruptFileError(f"damaged: {len(data)} bytes are no list of keys", location=str(path))
    return np.frombuffer(data, np.uint8).reshape(-1, KEY_BYTES)
