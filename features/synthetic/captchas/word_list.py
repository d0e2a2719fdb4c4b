"""Words: which ones a CAPTCHA may show, three to five letters a–z.

`words.txt` has 2,500 plain English words of SCOWL's list of size 35 (Spell Checker Oriented Word Lists, Kevin Atkinson;
its notice is in `words_licence.txt`), drawn by a hash, and sounds with a letter three times. `null` is one of them.
"""

import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

from features.io.locations import parse_location
from schemas.errors import UsageError

CHARACTERS = "abcdefghijklmnopqrstuvwxyz"

_WORD = re.compile(r"[a-z]{3,5}")


@cache
def load_default_words() -> tuple[str, ...]:
    """The 2,500 words that come with capt, in alphabetical order."""
    return tuple(files(__package__).joinpath("words.txt").read_text(encoding="ascii").split())


def read_words(path: str | Path) -> tuple[str, ...]:
    """The words of a file, one a line, in its order; UsageError where a line is no word, or one comes twice."""
    location = f"--word-list {path}"
    try:
        lines = parse_location(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the file: {error}", location=location) from None
    _check(lines, location)
    return tuple(lines)


def _check(words: Sequence[str], location: str) -> None:
    if not words:
        raise UsageError("holds no word", location=location, hint="write one a line")
    seen: set[str] = set()
    for number, word in enumerate(words, 1):
        if not _WORD.fullmatch(word):
            raise UsageError(f"line {number}: {word[:40]!r} is not three to five letters a-z", location=location)
        if word in seen:
            raise UsageError(f"line {number}: {word!r} is there twice", location=location)
        seen.add(word)
