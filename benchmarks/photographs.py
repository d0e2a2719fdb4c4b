"""Generates seeded JPEGs, all different, that are as expensive to read and decode as COCO's photographs.

640×480 pixels with a 1/f spectrum at quality 85 take 152 kB on average; COCO's images take 156 kB.
"""

import os
from collections.abc import Iterator
from io import BytesIO
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from features.extractors.weights import generate_noise_images

_GROUNDS = 16  # noise takes fifty times as long to make as to encode
_SEED = 7
_OLD = 1_000_000_000  # a time that the stat cache trusts


def photographs(width: int = 640, height: int = 480, first: int = 0) -> Iterator[bytes]:
    """Yields encoded photographs without end, starting at a number."""
    grounds = generate_noise_images(_GROUNDS, height, width, _SEED)
    number = first
    while True:
        turn, ground = divmod(number, _GROUNDS)
        pixels = np.roll(grounds[ground], (37 * turn, 59 * turn), axis=(0, 1))
        jpeg = BytesIO()
        Image.fromarray(pixels).save(jpeg, "JPEG", quality=85, comment=str(number))
        yield jpeg.getvalue()
        number += 1


def write_photographs(root: Path, count: int, first: int = 0) -> list[Path]:
    """Writes photographs to a directory and returns their paths."""
    root.mkdir(parents=True, exist_ok=True)
    paths = [root / f"{number:012d}.jpg" for number in range(first, first + count)]
    for path, data in zip(paths, islice(photographs(first=first), count), strict=True):
        path.write_bytes(data)
        os.utime(path, (_OLD, _OLD))
    return paths
