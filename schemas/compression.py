"""Compresses single tensor values, so that one row can be read without its neighbors.

Each value is a zstd frame of its own (RFC 8878, level 1; higher levels gain nothing on image features). Another level
produces other bytes for the same rows, so it needs a new name in `schemas.choices.Compression`.
"""

from functools import lru_cache
from typing import cast

import pyarrow as pa

from schemas.choices import Compression


def compress(data: bytes, compression: Compression) -> bytes:
    """Compresses the bytes of a value."""
    return data if compression == "none" else cast(bytes, _zstd().compress(data, asbytes=True))


def decompress(data: bytes, compression: Compression, size: int) -> bytes:
    """Decompresses a value to `size` bytes; raises ValueError if the bytes are not a zstd frame of this size."""
    if compression == "none":
        return data
    try:
        return cast(bytes, _zstd().decompress(data, size, asbytes=True))
    except OSError as error:
        raise ValueError(f"not a zstd frame of {size} bytes: {error}") from None


@lru_cache(maxsize=1)
def _zstd() -> pa.Codec:
    return pa.Codec("zstd", compression_level=1)
