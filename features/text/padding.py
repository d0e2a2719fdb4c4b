"""Pads the token IDs of captions to a matrix."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import UsageError
from schemas.table_config import PAD


def pad_tokens(
    rows: Sequence[Sequence[int] | NDArray[np.integer[Any]]], length: int | None = None
) -> NDArray[np.int32]:
    """Pads the token IDs of N captions at their ends with 0, the ID of `<pad>`.

    Args:
        rows: Token IDs per caption.
        length: Number of columns. By default, the length of the longest caption.

    Returns:
        int32 array [N, length].

    Raises:
        UsageError: A caption is longer than `length`.

    Example:
        capt.pad_tokens([[2, 4, 5, 3], [2, 4, 3]])   # [[2, 4, 5, 3], [2, 4, 3, 0]]
    """
    longest = max(map(len, rows), default=0)
    length = longest if length is None else length
    if longest > length:
        hint = f"Use at least {longest}, or truncate with `capt prepare captions --max-length {max(length, 3)}`."
        raise UsageError(f"a caption of {longest} tokens is longer than {length}", location="length", hint=hint)
    matrix = np.full((len(rows), length), PAD, np.int32)
    for line, ids in zip(matrix, rows, strict=True):
        line[: len(ids)] = ids
    return matrix
