"""Reads the boxes of files in the ISO base media file format: AVIF, HEIC and JPEG 2000."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from features.images.errors import truncation_error
from schemas.errors import RecordError

# Of these boxes an image file consists (ISO/IEC 14496-12 and 23008-12). Cameras add bytes of their own behind them.
_IMAGE_BOXES = frozenset((b"ftyp", b"meta", b"mdat", b"idat", b"moov", b"free", b"skip", b"uuid"))


@dataclass(frozen=True)
class Box:
    """A box: its type, and the range of its content."""

    kind: bytes
    start: int
    end: int


def read_boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """Yields the boxes in a range of a file; the end of the last one can be larger than that of the file."""
    end = len(data) if end is None else end
    while start < end:
        size, kind = int.from_bytes(data[start : start + 4]), data[start + 4 : start + 8]
        header = 8
        if size == 1:  # a 64-bit size follows
            size, header = int.from_bytes(data[start + 8 : start + 16]), 16
        size = size or end - start  # up to the end of the file
        if len(kind) < 4 or size < header:
            raise RecordError("decode", "truncated" if len(kind) < 4 else "corrupt", f"no box at byte {start}")
        yield Box(kind, start + header, start + size)
        start += size


def check_image_boxes(data: bytes) -> bytes:
    """Checks that the boxes of an AVIF or HEIC are complete, which its reader reports as corrupt."""
    has_pixels = is_cut = False
    with contextlib.suppress(RecordError):  # bytes behind the image that are no box
        for box in read_boxes(data):
            if box.end > len(data):
                is_cut = box.kind in _IMAGE_BOXES
                break
            has_pixels |= box.kind == b"mdat" or (box.kind == b"meta" and data.find(b"idat", box.start, box.end) >= 0)
    if is_cut or not has_pixels:
        raise truncation_error(data)
    return data
