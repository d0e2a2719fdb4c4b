"""Selects the chunks of a PNG that decide how it looks, and checks them.

Pillow reads chunks that no picture needs, and refuses or misreads a sound picture because of them: a text called
`transparency`, a colour profile with a wrong checksum, an animation. It compares the transparent colour with samples
that it has scaled. The result of `decisive_chunks` has neither.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from schemas.errors import RecordError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GRAY, COLOR, PALETTE = 0, 2, 3  # colour types
XMP, RAW_EXIF = b"XML:com.adobe.xmp", b"Raw profile type exif"  # names of texts that tell an orientation

_DEPTHS = {GRAY: (1, 2, 4, 8, 16), COLOR: (8, 16), PALETTE: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_CHECKED = (*_CRITICAL, b"tRNS", b"eXIf")
_MOST_TEXT = 1 << 20  # bytes of a text, as Pillow has it


@dataclass(frozen=True)
class _Chunk:
    kind: bytes
    start: int
    end: int
    body: bytes  # nothing of the pixels, which are not copied
    is_sound: bool


@dataclass
class _Picture:
    """The parts of a PNG that decide how it looks; each is empty until it is found."""

    depth: int
    color: int
    header: bytes
    palette: bytes = b""
    transparency: bytes = b""
    exif: bytes = b""
    texts: dict[bytes, bytes] = field(default_factory=dict)
    begin: int = 0  # of the pixels' chunks, which follow each other
    end: int = 0

    @property
    def entries(self) -> int:
        """How many colours of the palette can be meant."""
        return min(len(self.palette) // 3, 1 << self.depth)


def select_chunks(data: bytes) -> bytes:
    """Checks a PNG and returns one of the same pixels and orientation that has no other chunks (PNG, section 5).

    A checksum counts where its chunk decides how the picture looks: header, palette, pixels, transparency and EXIF.
    What comes twice or in a wrong place is ignored, as libpng does. Transparent samples are scaled to eight bits, and
    the palette has 256 entries, black beyond its end.

    Args:
        data: A PNG.

    Raises:
        RecordError: `truncated`, `corrupt`, or `unsupported` for a critical chunk that the specification does not have.
    """
    chunks = _chunks(data)
    picture = _begin(next(chunks))
    for chunk in chunks:
        _add(picture, chunk)
    if picture.color == PALETTE and not picture.palette:
        raise RecordError("decode", "corrupt", "the palette is missing")
    parts = [SIGNATURE, _written(b"IHDR", picture.header)]
    if picture.color == PALETTE:
        parts.append(_written(b"PLTE", picture.palette.ljust(3 * 256, b"\0")))
    if picture.transparency:
        parts.append(_written(b"tRNS", picture.transparency))
    if picture.exif:
        parts.append(_written(b"eXIf", picture.exif))
    parts += picture.texts.values()
    return b"".join((*parts, memoryview(data)[picture.begin : picture.end], _written(b"IEND", b"")))


def has_16_bit_transparency(data: bytes) -> bool:
    """Returns whether the result of `decisive_chunks` has a transparent colour of three 16-bit samples."""
    return data[24:26] == bytes((16, COLOR)) and data[37:41] == b"tRNS"


def _chunks(data: bytes) -> Iterator[_Chunk]:
    """Yields the chunks to the last one."""
    at, kind = len(SIGNATURE), b""
    while kind != b"IEND":
        size, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        end = at + 12 + size
        if end > len(data):
            raise RecordError("decode", "truncated", f"the file ends after {len(data)} bytes")
        is_sound = zlib.crc32(memoryview(data)[at + 4 : end - 4]) == int.from_bytes(data[end - 4 : end])
        if not is_sound and kind in _CHECKED:
            raise RecordError("decode", "corrupt", f"the checksum of the {kind!r} chunk at byte {at} is wrong")
        yield _Chunk(kind, at, end, b"" if kind == b"IDAT" else data[at + 8 : end - 4], is_sound)
        at = end


def _begin(chunk: _Chunk) -> _Picture:
    if chunk.kind != b"IHDR" or len(chunk.body) != 13:
        raise RecordError("decode", "corrupt", "the header is not the first chunk")
    width, height, depth, color, compression, filtering, interlace = struct.unpack(">IIBBBBB", chunk.body)
    is_known = depth in _DEPTHS.get(color, ()) and compression == filtering == 0 and interlace in (0, 1)
    if not is_known or not 0 < width < 1 << 31 or not 0 < height < 1 << 31:
        raise RecordError("decode", "corrupt", f"the header {chunk.body.hex()} has a value that is not defined")
    return _Picture(depth, color, chunk.body)


def _add(picture: _Picture, chunk: _Chunk) -> None:
    """Keeps what a chunk says of how the picture looks."""
    kind, body, is_before_pixels = chunk.kind, chunk.body, not picture.end
    if kind == b"IDAT":
        if is_before_pixels:
            picture.begin = picture.end = chunk.start
        if picture.end == chunk.start:
            picture.end = chunk.end
    elif kind == b"PLTE" and is_before_pixels:
        picture.palette = _palette(picture, body)
    elif kind == b"tRNS" and is_before_pixels and not picture.transparency:
        picture.transparency = _transparency(picture, body)
    elif kind == b"eXIf" and not picture.exif:
        picture.exif = body
    elif kind in (b"tEXt", b"zTXt", b"iTXt") and chunk.is_sound:
        name = body.partition(b"\0")[0]
        if name in (XMP, RAW_EXIF) and _is_short(kind, body):
            picture.texts.setdefault(name, _written(kind, body))
    elif not kind[0] & 0x20 and kind not in _CRITICAL:
        raise RecordError("decode", "unsupported", f"the critical chunk {kind!r}")


def _palette(picture: _Picture, body: bytes) -> bytes:
    if picture.palette:
        raise RecordError("decode", "corrupt", "there are two palettes")
    if picture.color == PALETTE and (not body or len(body) % 3 or len(body) > 3 * 256):
        raise RecordError("decode", "corrupt", f"a palette of {len(body)} bytes")
    return body


def _transparency(picture: _Picture, body: bytes) -> bytes:
    """Returns the body of a tRNS chunk as eight bits of gray need it; nothing if it does not fit the picture."""
    if picture.color == PALETTE:
        return body if len(body) <= picture.entries else b""
    if len(body) != {GRAY: 2, COLOR: 6}.get(picture.color):
        return b""
    white = (1 << picture.depth) - 1  # bits above the depth do not count
    scale = 255 // white if picture.depth < 8 else 1
    samples = struct.unpack(f">{len(body) // 2}H", body)
    return struct.pack(f">{len(samples)}H", *((sample & white) * scale for sample in samples))


def _is_short(kind: bytes, body: bytes) -> bool:
    """Returns whether Pillow reads a text; it refuses the picture because of a text that unpacks to more."""
    packed = body.partition(b"\0")[2]
    if kind == b"iTXt":
        packed = packed[:1] + packed[2:].split(b"\0", 2)[-1] if packed[:1] == b"\1" else b""
    if kind == b"tEXt" or not packed:
        return len(body) <= _MOST_TEXT
    try:
        return len(zlib.decompressobj().decompress(packed[1:], _MOST_TEXT + 1)) <= _MOST_TEXT
    except zlib.error:
        return False


def _written(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)
