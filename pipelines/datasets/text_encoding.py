"""Decodes the byte order marks of annotation files: UTF-8, UTF-16 and UTF-32."""

import codecs

# UTF-32's mark begins with UTF-16's, so it comes first.
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}


def find_byte_order_mark(data: bytes) -> tuple[bytes, str] | None:
    """Finds the byte order mark that a text begins with.

    Args:
        data: The text, or its first four bytes.

    Returns:
        The mark and the encoding; None if there is no mark.
    """
    return next(((mark, name) for mark, name in _MARKS.items() if data.startswith(mark)), None)


def convert_to_utf8(data: bytes) -> bytes:
    """Converts a text to UTF-8 without a byte order mark.

    Half a surrogate pair becomes bytes that are not UTF-8, so that it costs its line alone.

    Args:
        data: A text that begins with a byte order mark, or any other bytes.

    Returns:
        The converted text; `data` itself if it has no mark.

    Raises:
        UnicodeDecodeError: UTF-16 or UTF-32 ends within a character, or UTF-32 holds a number that is not a character.
    """
    found = find_byte_order_mark(data)
    if found is None:
        return data
    mark, name = found
    body = data[len(mark) :]
    return body if name == "utf-8" else body.decode(name, "surrogatepass").encode("utf-8", "surrogatepass")
