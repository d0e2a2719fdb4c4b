"""Reads the header of a PNG or JPEG inside a TensorFlow graph.

    PNG  → chunks   → transparency, EXIF, XMP
    JPEG → segments → Adobe's marker, EXIF, XMP
    EXIF, XMP → orientation (CIPA DC-008, tag 274)

The rules equal the rules of `features.images.png_chunks` and of Pillow's readers, so that served and stored images have
equal pixels.
"""

from typing import Any

import tensorflow as tf

from features.images.png_chunks import COLOR, GRAY, PALETTE, RAW_EXIF, XMP

_ORIENTATION = 274
_HEADERS = (b"II*\0", b"MM\0*", b"MM*\0", b"II\0*", b"MM\0+")  # of an EXIF block, as in Pillow
_UNIT_SIZES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8)  # bytes per value by type (TIFF 6.0, section 2)
_WHOLE_SIZES = (0, 0, 0, 2, 4, 0, 1, 0, 2, 4, 0, 0, 0, 4, 0, 0, 8)  # as above, for integer types
_STORED = 0xFFFF  # maximum bytes of a stored block of deflate
_XMP_SEGMENT = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_ORIENTATION = r"(?s)\C*?tiff:Orientation(?:=\"|>)([0-9])\C*"


def read_png_header(data: Any) -> tuple[Any, Any, Any]:
    """Reads the chunks of a PNG (PNG specification, section 5), given as a string scalar.

    Returns:
        Scalar tensors: whether it has transparency; whether its orientation is stored in a form that this module does
        not read; the orientation, int32.

    Raises:
        tf.errors.DataLossError: The checksum of a chunk that affects the pixels is wrong.
    """
    color, depth, length = _number(data, 25, 1), _number(data, 24, 1), tf.strings.length(data)

    def walk(at: Any, found: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        size, kind = _number(data, at, 4), tf.strings.substr(data, at + 4, 4)
        end = tf.where((size >= 0) & (size <= length - at - 12), at + 12 + size, tf.int32.max - 12)
        entries = tf.minimum(found["entries"], tf.bitwise.left_shift(1, depth))
        fits = ((color == GRAY) & (size == 2)) | ((color == COLOR) & (size == 6))
        fits |= (color == PALETTE) & (size > 0) & (size <= entries)
        here = tf.stack([at + 4, size + 4])
        is_xmp = (kind == b"iTXt") & has_bytes(data, at + 8, XMP + b"\0")
        is_raw = ((kind == b"tEXt") | (kind == b"zTXt")) & has_bytes(data, at + 8, RAW_EXIF + b"\0")
        before = ~found["has_pixels"]
        return end, {
            "has_pixels": found["has_pixels"] | (kind == b"IDAT"),
            "entries": tf.where(before & (kind == b"PLTE"), size // 3, found["entries"]),
            "transparency": _first(found["transparency"], here, before & fits & (kind == b"tRNS")),
            "exif": _first(found["exif"], here, kind == b"eXIf"),
            "xmp": _first(found["xmp"], here, is_xmp),
            "raw_exif": found["raw_exif"] | is_raw,
        }

    found = dict.fromkeys(("transparency", "exif", "xmp"), tf.zeros(2, tf.int32))
    found |= {"has_pixels": tf.constant(False), "entries": tf.constant(0), "raw_exif": tf.constant(False)}
    _, found = tf.while_loop(lambda at, _: at + 12 <= length, walk, (tf.constant(8), found))
    xmp = _body(data, found["xmp"], len(XMP) + 1)
    has_transparency = tf.strings.length(_body(data, found["transparency"])) > 0
    has_alpha = has_transparency | (tf.bitwise.bitwise_and(color, 4) > 0)
    is_unsupported = has_bytes(xmp, 0, b"\1") | (found["raw_exif"] & (found["exif"][1] == 0))
    return has_alpha, is_unsupported, _orientation(_body(data, found["exif"]), xmp)


def read_jpeg_header(data: Any) -> tuple[Any, Any]:
    """Reads the segments of a JPEG up to its pixels (JPEG, annex B), given as a string scalar.

    Returns:
        Scalar tensors: whether it has four components and lacks Adobe's marker; the orientation, int32.
    """
    # Pixels follow the start of scan; markers without a length follow each other.
    length = tf.strings.length(data)

    def walk(at: Any, found: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        is_marker = _number(data, at, 1) == 0xFF
        kind, size = _number(data, at + 1, 1), _number(data, at + 2, 2)
        is_segment = is_marker & (kind >= 0xC0) & (kind != 0xFF) & ((kind < 0xD0) | (kind > 0xD9))
        end = tf.where(is_segment, at + 2 + size, tf.where(is_marker & (kind != 0xFF) & (kind > 0), at + 2, at + 1))
        here = tf.stack([at + 4, tf.maximum(size - 2, 0)])
        is_whole, is_app1 = is_segment & (end <= length), is_segment & (kind == 0xE1)
        # A frame contains the number of components.
        is_frame = (kind >= 0xC0) & (kind <= 0xCF) & (kind != 0xC4) & (kind != 0xC8) & (kind != 0xCC)
        is_xmp = is_app1 & is_whole & has_bytes(data, at + 4, _XMP_SEGMENT)
        return tf.where(is_segment & (kind == 0xDA), length, end), {
            "exif": _first(found["exif"], here, is_app1 & is_whole & has_bytes(data, at + 4, b"Exif\0\0")),
            "xmp": tf.where(is_xmp, here, found["xmp"]),
            "cmyk": found["cmyk"] | (is_segment & is_frame & (_number(data, at + 9, 1) == 4)),
            "adobe": found["adobe"] | (is_segment & (kind == 0xEE) & (size >= 14) & has_bytes(data, at + 4, b"Adobe")),
        }

    empty = tf.zeros(2, tf.int32)
    initial = {"exif": empty, "xmp": empty, "cmyk": tf.constant(False), "adobe": tf.constant(False)}
    _, found = tf.while_loop(lambda at, _: at + 4 <= length, walk, (tf.constant(2), initial))
    orientation = _orientation(_part(data, found["exif"]), _part(data, found["xmp"]))
    return found["cmyk"] & ~found["adobe"], orientation


def _orientation(exif: Any, xmp: Any) -> Any:
    """Returns the orientation of an EXIF block or, if it has none, of an XMP block; 1 by default. Both may be empty."""
    block = tf.strings.regex_replace(exif, r"^(?:Exif\x00\x00)+", "")
    is_headed = tf.reduce_any(tf.equal(tf.strings.substr(block, 0, 4), tf.constant(_HEADERS)))
    is_read = is_headed & (tf.strings.length(block) >= 8)
    value = tf.cond(is_read, lambda: _read_orientation(block), lambda: tf.where(tf.strings.length(block) > 0, 1, 0))

    def parse_xmp() -> Any:
        is_found = tf.strings.regex_full_match(xmp, _XMP_ORIENTATION)
        digit = tf.strings.regex_replace(xmp, _XMP_ORIENTATION, r"\1")
        return tf.strings.to_number(tf.where(is_found, digit, "1"), tf.int32)

    return tf.cond(value > 0, lambda: value, parse_xmp)


def _read_orientation(block: Any) -> Any:
    """Returns the orientation in the first directory of an EXIF block (TIFF 6.0, section 2).

    The result is 0 without an entry, and 1 if the value is not an integer from 1 to 8. As in Pillow, the last entry
    counts, and entries after a value beyond the end of the block are ignored.
    """
    values = tf.cast(tf.io.decode_raw(block, tf.uint8), tf.int64)
    length = tf.size(values, tf.int64)
    is_little = has_bytes(block, 0, b"II")

    def number(offset: Any, size: int) -> Any:
        window = offset[..., tf.newaxis] + tf.range(size, dtype=tf.int64)
        window = tf.where(is_little, window[..., ::-1], window)
        inside = (window >= 0) & (window < length)
        each = tf.where(inside, tf.gather(values, tf.clip_by_value(window, 0, length - 1)), 0)
        return tf.reduce_sum(each * tf.constant([1 << 8 * i for i in reversed(range(size))], tf.int64), axis=-1)

    directory = number(tf.constant(4, tf.int64), 4)
    count = tf.minimum(number(directory, 2), tf.maximum(length - directory - 2, 0) // 12)
    offsets = directory + 2 + 12 * tf.range(count)
    types = number(offsets + 2, 2)
    known = tf.minimum(types, len(_UNIT_SIZES) - 1) * tf.cast(types < len(_UNIT_SIZES), tf.int64)
    size = number(offsets + 4, 4) * tf.gather(tf.constant(_UNIT_SIZES, tf.int64), known)
    at = tf.where(size > 4, number(offsets + 8, 4), offsets + 8)
    is_before_end = tf.equal(tf.cumsum(tf.cast((size > 4) & (at + size > length), tf.int32)), 0)
    entries = tf.where((number(offsets, 2) == _ORIENTATION) & (size > 0) & is_before_end)[:, 0]

    def value() -> Any:
        last = entries[-1]
        width = tf.gather(tf.constant(_WHOLE_SIZES, tf.int64), known[last])
        each = tf.stack([number(at[last], width) for width in (1, 2, 4, 8)])
        whole = tf.reduce_sum(tf.where(tf.equal(width, [1, 2, 4, 8]), each, 0))
        return tf.cast(tf.where((whole > 0) & (whole < 9), whole, 1), tf.int32)

    return tf.cond(tf.size(entries) > 0, value, lambda: tf.constant(0))


# === Bytes ===


def _number(data: Any, offset: Any, size: int) -> Any:
    """Returns the big-endian integer of 1, 2 or 4 bytes as int32, which wraps for 4 bytes; 0 beyond the end."""
    part = tf.strings.substr(data, tf.minimum(offset, tf.strings.length(data)), size)
    padded = tf.strings.join([tf.constant(b"\0" * (4 - size)), part, tf.constant(b"\0" * size)])
    return tf.io.decode_raw(tf.strings.substr(padded, 0, 4), tf.int32, little_endian=False)[0]


def has_bytes(data: Any, offset: Any, expected: bytes) -> Any:
    """Returns whether data has these bytes at an offset."""
    return tf.equal(tf.strings.substr(data, tf.minimum(offset, tf.strings.length(data)), len(expected)), expected)


def _first(found: Any, here: Any, matches: Any) -> Any:
    """Returns the span `found`, or, if it is empty and this span matches, `here`; a span is offset and length."""
    return tf.where(matches & (found[1] == 0), here, found)


def _part(data: Any, span: Any) -> Any:
    return tf.strings.substr(data, span[0], span[1])


def _body(data: Any, span: Any, skipped: int = 0) -> Any:
    """Returns the body of a chunk without its first bytes; empty for an empty span.

    PNG and gzip use the same checksum, so TensorFlow checks it by decompressing the chunk as a gzip file of one
    stored block. Chunks above the maximum size of a block are not checked. The span has the chunk's type and body.
    """
    chunk, checksum = _part(data, span), tf.strings.substr(data, tf.reduce_sum(span), 4)
    size = span[1]

    def check() -> Any:
        head = tf.constant(b"\x1f\x8b\x08\0\0\0\0\0\0\xff\1")
        sizes = [_little(size, 2), _little(_STORED - size, 2)]
        reversed_checksum = [tf.strings.substr(checksum, i, 1) for i in (3, 2, 1, 0)]
        return tf.io.decode_compressed(
            tf.strings.join([head, *sizes, chunk, *reversed_checksum, _little(size, 4)]), "GZIP"
        )

    checked = tf.cond((size > 0) & (size <= _STORED), check, lambda: chunk)
    first = tf.minimum(4 + skipped, tf.strings.length(checked))
    return tf.strings.substr(checked, first, tf.strings.length(checked))


def _little(number: Any, size: int) -> Any:
    """Returns an integer as little-endian bytes."""
    each = [tf.bitwise.bitwise_and(tf.bitwise.right_shift(number, 8 * i), 255) for i in range(size)]
    return tf.strings.join([tf.gather(tf.constant([bytes([i]) for i in range(256)]), one) for one in each])
