"""Escapes characters in external text that could control a terminal."""

import unicodedata

# Control, format (bidirectional overrides), surrogate, and line and paragraph separators.
_ESCAPED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Joiners only combine letters and emoji.
_KEPT = frozenset("\n\t\u200c\u200d")


def printable(text: object) -> str:
    """Escapes characters that could control a terminal or that no encoding represents; keeps line breaks and tabs."""
    return "".join(
        c
        if c in _KEPT or unicodedata.category(c) not in _ESCAPED
        else c.encode("unicode_escape", "backslashreplace").decode("ascii")
        for c in str(text)
    )
