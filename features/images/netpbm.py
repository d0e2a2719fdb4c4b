"""Converts PBM, PGM and PPM images to the kinds that Pillow decodes without loops in Python.

Pillow scales samples of another maximum than 255 one by one, and gray and color ones by different rules.
"""

import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from schemas.errors import RecordError

_SPACE = rb"(?:\s|#[^\r\n]*+[\r\n])++"
_SIZE = rb"P([1-6])" + _SPACE + rb"(\d{1,10})" + _SPACE + rb"(\d{1,10})"
# A signature has to fit into the first bytes of a file. Text can start with "P1", too.
SIGNATURE = re.compile(rb"P[1-6]\s+(?:#|\d{1,10}\s+(?:\d|#))")
_BITMAP = re.compile(_SIZE + rb"\s")
_LEVELS = re.compile(_SIZE + _SPACE + rb"(\d{1,10})\s")
_INCOMPLETE_HEADER = re.compile(rb"P[1-6](?:[\d\s]|#[^\r\n]*+(?:[\r\n]|\Z))*+")
_COMMENT = re.compile(rb"#[^\r\n]*+")
_SPACE_CHARACTER = re.compile(rb"\s")
_NO_NUMBER = re.compile(rb"[^\d\s]")

_BLOCK_BYTES = 1 << 20

_Samples = NDArray[np.integer]


def convert_to_bytes(data: bytes) -> bytes:
    """Returns a PBM, PGM or PPM with the same image as binary samples of 0…255, or as bits.

    Samples are scaled to the nearest of 256 levels. The result is not larger than the data. It is incomplete if the
    data is, so that the size in the header can be checked first.

    Raises:
        RecordError: The header is truncated or corrupt, or a sample is not a number up to the maximum of the header.
    """
    is_bitmap = data[1:2] in b"14"
    header = (_BITMAP if is_bitmap else _LEVELS).match(data)
    if not header:
        reason = "truncated" if _INCOMPLETE_HEADER.fullmatch(data) else "corrupt"
        raise RecordError("decode", reason, f"no header of a P{data[1:2].decode()} image")
    kind, width, height, maximum = (int(number) for number in (*header.groups(), b"1")[:4])
    if not width or not height or not 0 < maximum < 1 << 16:
        raise RecordError("decode", "corrupt", f"a header with size {width}×{height} and maximum {maximum}")
    if kind == 4 or (kind > 4 and maximum == 255):
        return data
    if kind > 4:
        dtype = np.dtype(">u2" if maximum > 255 else np.uint8)
        count = (len(data) - header.end()) // dtype.itemsize
        blocks: Iterator[_Samples] = iter([np.frombuffer(data, dtype, count, header.end())])
    else:
        blocks = _read_text(data, header.end(), is_bitmap)
    levels = np.rint(np.arange(maximum + 1) * (255 / maximum)).astype(np.uint8)
    pixels = b"".join(_scale(block, levels[::-1] if is_bitmap else levels) for block in blocks)
    return b"P%d %d %d 255\n" % (6 if kind in (3, 6) else 5, width, height) + pixels


def _scale(samples: _Samples, levels: NDArray[np.uint8]) -> bytes:
    if samples.size and not 0 <= samples.min() <= samples.max() < len(levels):
        raise RecordError("decode", "corrupt", f"a sample above the maximum of {len(levels) - 1}")
    return levels[samples].tobytes()


def _read_text(data: bytes, start: int, is_bitmap: bool) -> Iterator[_Samples]:
    """Yields the decimal samples of a text, in blocks to save memory. Those of a bitmap need no spaces between them."""
    if is_bitmap:
        digits = _COMMENT.sub(b"", data[start:]).translate(None, b" \t\n\v\f\r")
        yield np.frombuffer(digits, np.int8) - np.int8(ord("0"))
        return
    if data.find(b"#", start) >= 0:
        data, start = _COMMENT.sub(b"", data[start:]), 0
    while start < len(data):
        space = _SPACE_CHARACTER.search(data, start + _BLOCK_BYTES)
        end = space.start() if space else len(data)
        block = data[start:end]
        if unknown := _NO_NUMBER.search(block):
            raise RecordError("decode", "corrupt", f"{unknown.group()!r} in the numbers of an image")
        if not block.isspace():  # of which NumPy makes a zero
            yield np.fromstring(block, np.int64, sep=" ")
        start = end
