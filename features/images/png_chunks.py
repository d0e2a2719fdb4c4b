"""Checks a PNG and keeps only the chunks that determine its pixels and orientation.

Pillow rejects or misreads valid images because of other chunks: a text called `transparency`, a color profile with a
wrong checksum, an animation. It also compares the transparent color with samples that it has already scaled.
`select_chunks` avoids both.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from features.images.errors import truncation_error
from schemas.errors import RecordError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GRAY, COLOR, PALETTE = 0, 2, 3  # color types
XMP, RAW_EXIF = b"XML:com.adobe.xmp", b"Raw profile type exif"  # names of texts with an orientation

_DEPTHS = {GRAY: (1, 2, 4, 8, 16), COLOR: (8, 16), PALETTE: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_CHECKED = (*_CRITICAL, b"tRNS", b"eXIf")
_MAX_TEXT_BYTES = 1 << 20  # Pillow's limit


@dataclass(frozen=True)
class _Chunk:
    kind: bytes
    start: int
    end: int
    body: bytes  # empty for pixels
    is_valid: bool


@dataclass
class _SelectedChunks:
    """The parts of a PNG that determine its pixels and orientation; each is empty until it is found."""

    depth: int
    color: int
    header: bytes
    palette: bytes = b""
    transparency: bytes = b""
    exif: bytes = b""
    texts: dict[bytes, bytes] = field(default_factory=dict)
    start: int = 0  # range of the consecutive chunks of pixels
    end: int = 0


def select_chunks(data: bytes) -> bytes:
    """Checks a PNG and returns one with the same pixels and orientation but without other chunks (PNG, section 5).

    Only the checksums of the header, palette, pixels, transparency and EXIF are checked. Repeated and misplaced chunks
    are ignored, as in libpng. Transparent samples are scaled to eight bits. The palette is padded with black to 256
    colors.
    """
    chunks = _read_chunks(data)
    selected = _read_header(next(chunks))
    for chunk in chunks:
        _select(selected, chunk)
    if selected.color == PALETTE and not selected.palette:
        raise RecordError("decode", "corrupt", "the palette is missing")
    palette = selected.palette.ljust(3 * 256, b"\0") if selected.color == PALETTE else b""
    chunks_before = {b"PLTE": palette, b"tRNS": selected.transparency, b"eXIf": selected.exif}
    parts = [SIGNATURE, _serialize(b"IHDR", selected.header)]
    parts += [_serialize(kind, body) for kind, body in chunks_before.items() if body]
    parts += selected.texts.values()
    return b"".join((*parts, memoryview(data)[selected.start : selected.end], _serialize(b"IEND", b"")))


def has_16_bit_transparency(data: bytes) -> bool:
    """Returns whether the result of `select_chunks` has a transparent color of three 16-bit samples."""
    return data[24:26] == bytes((16, COLOR)) and data[37:41] == b"tRNS"


def _read_chunks(data: bytes) -> Iterator[_Chunk]:
    at, kind = len(SIGNATURE), b""
    while kind != b"IEND":
        size, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        end = at + 12 + size
        if end > len(data):
            raise truncation_error(data)
        is_valid = zlib.crc32(memoryview(data)[at + 4 : end - 4]) == int.from_bytes(data[end - 4 : end])
        if not is_valid and kind in _CHECKED:
            raise RecordError("decode", "corrupt", f"the checksum of the {kind!r} chunk at byte {at} is wrong")
        yield _Chunk(kind, at, end, b"" if kind == b"IDAT" else data[at + 8 : end - 4], is_valid)
        at = end


def _read_header(chunk: _Chunk) -> _SelectedChunks:
    if chunk.kind != b"IHDR" or len(chunk.body) != 13:
        raise RecordError("decode", "corrupt", "the header is not the first chunk")
    width, height, depth, color, compression, filtering, interlace = struct.unpack(">IIBBBBB", chunk.body)
    is_known = depth in _DEPTHS.get(color, ()) and compression == filtering == 0 and interlace in (0, 1)
    if not is_known or not 0 < width < 1 << 31 or not 0 < height < 1 << 31:
        raise RecordError("decode", "corrupt", f"the header {chunk.body.hex()} has an undefined value")
    return _SelectedChunks(depth, color, chunk.body)


def _select(selected: _SelectedChunks, chunk: _Chunk) -> None:
    kind, body, is_before_pixels = chunk.kind, chunk.body, not selected.end
    if kind == b"IDAT":
        if is_before_pixels:
            selected.start = selected.end = chunk.start
        if selected.end == chunk.start:
            selected.end = chunk.end
    elif kind == b"PLTE" and is_before_pixels:
        if selected.palette:
            raise RecordError("decode", "corrupt", "there are two palettes")
        if selected.color == PALETTE and (not body or len(body) % 3 or len(body) > 3 * 256):
            raise RecordError("decode", "corrupt", f"a palette of {len(body)} bytes")
        selected.palette = body
    elif kind == b"tRNS" and is_before_pixels and not selected.transparency:
        selected.transparency = _scale_transparency(selected, body)
    elif kind == b"eXIf" and not selected.exif:
        selected.exif = body
    elif kind in (b"tEXt", b"zTXt", b"iTXt") and chunk.is_valid:
        name = body.partition(b"\0")[0]
        if name in (XMP, RAW_EXIF) and _is_short(kind, body):
            selected.texts.setdefault(name, _serialize(kind, body))
    elif not kind[0] & 0x20 and kind not in _CRITICAL:
        raise RecordError("decode", "unsupported", f"the critical chunk {kind!r}")


def _scale_transparency(selected: _SelectedChunks, body: bytes) -> bytes:
    """Returns the body of a tRNS chunk with samples of eight bits, or nothing if the chunk does not fit the image."""
    if selected.color == PALETTE:
        num_used_colors = min(len(selected.palette) // 3, 1 << selected.depth)
        return body if len(body) <= num_used_colors else b""
    if len(body) != {GRAY: 2, COLOR: 6}.get(selected.color):
        return b""
    white = (1 << selected.depth) - 1  # higher bits are ignored
    scale = 255 // white if selected.depth < 8 else 1
    samples = struct.unpack(f">{len(body) // 2}H", body)
    return struct.pack(f">{len(samples)}H", *((sample & white) * scale for sample in samples))


def _is_short(kind: bytes, body: bytes) -> bool:
    """Returns whether a text is within Pillow's limit. Pillow rejects the image because of a longer one."""
    packed = body.partition(b"\0")[2]
    if kind == b"iTXt":
        packed = packed[:1] + packed[2:].split(b"\0", 2)[-1] if packed[:1] == b"\1" else b""
    if kind == b"tEXt" or not packed:
        return len(body) <= _MAX_TEXT_BYTES
    try:
        return len(zlib.decompressobj().decompress(packed[1:], _MAX_TEXT_BYTES + 1)) <= _MAX_TEXT_BYTES
    except zlib.error:
        return False


def _serialize(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)
