"""Finds the byte order mark of a text, and converts such a text to UTF-8."""

import codecs

# The mark of UTF-32 begins with the mark of UTF-16, so UTF-32 is first.
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


def find_byte_order_mark(data: bytes) -> tuple[bytes, str] | None:
    """Returns the byte order mark at the beginning of a text and its encoding; None without a mark."""
    return next(((mark, name) for mark, name in _BYTE_ORDER_MARKS.items() if data.startswith(mark)), None)


def convert_to_utf8(data: bytes) -> bytes:
    """Converts a text with a byte order mark to UTF-8 without one. Returns any other bytes unchanged.

    An unpaired surrogate becomes bytes that are not UTF-8, so that it fails its line only. An incomplete or invalid
    character of UTF-16 or UTF-32 raises UnicodeDecodeError.
    """
    found = find_byte_order_mark(data)
    if found is None:
        return data
    mark, encoding = found
    body = data[len(mark) :]
    return body if encoding == "utf-8" else body.decode(encoding, "surrogatepass").encode("utf-8", "surrogatepass")
