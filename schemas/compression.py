"""Compression of single tensor values: each value a frame of its own, so that one row is read without its neighbours.

zstd as in RFC 8878, at level 1: on features of images higher levels gain nothing. Another level gives other bytes for
the same rows, so it must never change without a new name.
"""

from functools import lru_cache
from typing import cast

import pyarrow as pa

from schemas.choices import Compression

_ZSTD_LEVEL = 1


def compress(data: bytes, compression: Compression) -> bytes:
    """The bytes that are kept of a value's bytes."""
    return data if compression == "none" else cast(bytes, _zstd().compress(data, asbytes=True))


def decompress(kept: bytes, compression: Compression, size: int) -> bytes:
    """The `size` bytes that `compress` took; ValueError where `kept` is nothing of the kind."""
    if compression == "none":
        return kept
    try:
        return cast(bytes, _zstd().decompress(kept, size, asbytes=True))
    except OSError as error:
        raise ValueError(f"no zstd frame of {size} bytes: {error}") from None


@lru_cache(maxsize=1)
def _zstd() -> pa.Codec:
    return pa.Codec("zstd", compression_level=_ZSTD_LEVEL)
