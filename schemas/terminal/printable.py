"""Escapes characters in external text that could control a terminal."""

import unicodedata

# Control, format (bidirectional overrides), surrogate, and line and paragraph separators.
_ESCAPED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Joiners only combine letters and emoji.
_KEPT = frozenset("\n\t\u200c\u200d")


def printable(text: object) -> str:
    """Escapes control characters, bidirectional overrides and lone surrogates as Python writes them.

    Args:
        text: The value to print. Line breaks and tabs are kept.

    Returns:
        Text that cannot control a terminal and that every Unicode encoding can represent.
    """
    return "".join(c if c in _KEPT or unicodedata.category(c) not in _ESCAPED else _escape(c) for c in str(text))


def _escape(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")
