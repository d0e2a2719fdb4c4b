"""Checks the headers of a JPEG 2000 before OpenJPEG decodes it.

OpenJPEG decodes truncated data without an error if it ends between two tiles, and allocates memory per code block.
"""

import struct
from collections.abc import Iterator

from features.images.boxes import read_boxes
from features.images.errors import truncation_error
from schemas.errors import RecordError

_SIZ, _COD, _COC, _SOT, _SOD, _EOC = 0xFF51, 0xFF52, 0xFF53, 0xFF90, 0xFF93, 0xFFD9
_START = b"\xff\x4f\xff\x51"  # of a codestream

# OpenJPEG takes about 400 bytes per code block. Encoders use blocks of 1024 or 4096 samples.
_MIN_PIXELS_PER_BLOCK = 64
_FREE_BLOCKS = 1 << 14  # of small images and low resolutions
_MAX_LEVELS = 32
_MAX_STYLE_BYTES = 48  # with a precinct size for each level
_MAX_STYLES = 1000  # of tiles and components

_Size = tuple[int, int]  # width, height


def check_codestream(data: bytes) -> bytes:
    """Checks that a JPEG 2000 is complete up to its end marker, and that its headers agree (ISO/IEC 15444-1, annex A).

    Raises:
        RecordError: With reason `truncated`; `corrupt` if the size of the file's header is not that of the codestream;
            `unsupported` for samples of fewer than eight bits, which Pillow does not scale, or for code blocks so
            small that the decoder would need much more memory than the pixels.
    """
    try:
        start, end, declared = (0, len(data), set[_Size]()) if data.startswith(_START) else _find_codestream(data)
        size, components = _read_size(data, start)
        if declared - {size}:
            raise RecordError("decode", "corrupt", f"a codestream of {size} in a file of {declared}")
        styles = set[tuple[int, bytes]]()
        for marker, at in _read_markers(data, start, end):
            if marker in (_COD, _COC):
                styles.add((marker, data[at : at + min(int.from_bytes(data[at : at + 2]), _MAX_STYLE_BYTES)]))
            if len(styles) > _MAX_STYLES:
                raise RecordError("decode", "unsupported", f"more than {_MAX_STYLES} coding styles")
        for marker, segment in styles:
            _check_blocks(segment, marker, size, components)
    except (struct.error, IndexError):
        raise truncation_error(data) from None
    return data


def _find_codestream(data: bytes) -> tuple[int, int, set[_Size]]:
    """Returns the range of the codestream of a JP2 or JPX file, and the sizes in the headers before it."""
    declared = set[_Size]()
    for box in read_boxes(data):
        if box.kind == b"jp2h":
            headers = (one.start for one in read_boxes(data, box.start, box.end) if one.kind == b"ihdr")
            sizes = (struct.unpack_from(">II", data, at) for at in headers)
            declared |= {(width, height) for height, width in sizes}
        if box.kind == b"jp2c":
            return box.start, min(box.end, len(data)), declared
    raise truncation_error(data)


def _read_size(data: bytes, start: int) -> tuple[_Size, int]:
    """Returns the width and height of a codestream, and its number of components."""
    marker, _, _, right, bottom, left, top, *_, components = struct.unpack_from(">HHHIIIIIIIIH", data, start + 2)
    if marker != _SIZ or right <= left or bottom <= top:
        raise RecordError("decode", "corrupt", "a codestream without a size")
    if not 1 <= components <= 4:
        raise RecordError("decode", "unsupported", f"{components} components")
    bits = min((data[start + 42 + 3 * component] & 0x7F) + 1 for component in range(components))
    if bits < 8:
        raise RecordError("decode", "unsupported", f"JPEG 2000 samples of {bits} bits")
    return (right - left, bottom - top), components


def _read_markers(data: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yields the markers in all headers up to the end marker, with the positions of their segments."""
    at, tile_part_end = start + 2, end
    while at + 2 <= end:
        (marker,) = struct.unpack_from(">H", data, at)
        if marker == _EOC:
            return
        length = tile_part_end - at - 2 if marker == _SOD else struct.unpack_from(">H", data, at + 2)[0]
        if marker < 0xFF00 or length < (0 if marker == _SOD else 2):
            raise RecordError("decode", "corrupt", f"no marker at byte {at}")
        if at + 2 + length > end:
            break
        if marker == _SOT:
            (tile_part_bytes,) = struct.unpack_from(">I", data, at + 6)
            tile_part_end = at + tile_part_bytes if tile_part_bytes else end - 2  # 0 in the last one: up to the end
        yield marker, at + 2
        at += 2 + length
    raise truncation_error(data)


def _check_blocks(segment: bytes, marker: int, size: _Size, components: int) -> None:
    """Checks the number of code blocks and precincts by a segment of coding style."""
    style, parameters = (segment[2], segment[7:]) if marker == _COD else (segment[3], segment[4:])
    levels, width_exponent, height_exponent = parameters[:3]
    if levels > _MAX_LEVELS:
        raise RecordError("decode", "corrupt", f"{levels} decomposition levels")
    blocks = 0
    for resolution in range(levels + 1):
        precinct = parameters[5 + resolution] if style & 1 else 0xFF
        is_halved = resolution > 0  # code blocks are in subbands of half the size
        width, height = (-(-side // 2 ** (levels - resolution)) for side in size)
        across, down = 2 ** (precinct & 15), 2 ** (precinct >> 4)
        block_width = max(1, min(2 ** (width_exponent + 2), across >> is_halved))
        block_height = max(1, min(2 ** (height_exponent + 2), down >> is_halved))
        blocks += -(-width // block_width) * -(-height // block_height) + -(-width // across) * -(-height // down)
    if blocks * components > _FREE_BLOCKS + size[0] * size[1] // _MIN_PIXELS_PER_BLOCK:
        raise RecordError("decode", "unsupported", f"about {blocks * components} code blocks for an image of {size}")
