"""Provides the labels of CAPTCHAs: words of a list, or random characters of a set.

`words.txt` has 2,500 entries of three to five letters: plain English words from SCOWL's list of size 35 (Spell Checker
Oriented Word Lists, Kevin Atkinson; its notice is in `words_licence.txt`), selected by a hash, and sounds with a letter
three times. `null` is one of the words.
"""

import unicodedata
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import numpy as np

from features.io.locations import parse_location
from features.text.charset import normalize_label
from schemas.errors import UsageError

LENGTHS = (3, 5)
MAX_LENGTH = 200

_RIGHT_TO_LEFT = ("R", "AL")
_ATTEMPTS = 1000


@cache
def load_default_words() -> tuple[str, ...]:
    """Returns the 2,500 words of the package in alphabetical order."""
    return tuple(files(__package__).joinpath("words.txt").read_text(encoding="ascii").split())


def read_words(path: str | Path) -> tuple[str, ...]:
    """Reads labels from a UTF-8 file with one unique label per line, without white space, in NFC."""
    location = f"--word-list {path}"
    try:
        words = parse_location(path).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the file: {error}", location=location) from None
    words = [normalize_label(word.removesuffix("\r")) for word in words]
    words = words[:-1] if words[-1] == "" else words
    if not words:
        raise UsageError("the file is empty", location=location, hint="Write one label per line.")
    seen: set[str] = set()
    for number, word in enumerate(words, 1):
        if problem := _find_problem(word):
            raise UsageError(f"line {number}: {word[:40]!r} {problem}", location=location)
        if word in seen:
            raise UsageError(f"line {number}: {word!r} is repeated", location=location)
        seen.add(word)
    return tuple(words)


def select_words(words: Sequence[str], lengths: tuple[int, int]) -> tuple[str, ...]:
    """Returns the words whose number of characters is in a range."""
    selected = tuple(word for word in words if lengths[0] <= len(word) <= lengths[1])
    if not selected:
        message = f"no word has {lengths[0]} to {lengths[1]} characters"
        raise UsageError(message, location="--lengths", hint="Add --charset, or another --word-list.")
    return selected


def parse_characters(text: str) -> tuple[str, ...]:
    """Parses `--charset`: the code points of a text after NFC, each once, in their order.

    Raises:
        UsageError: A character is invisible, or all are combining marks.
    """
    characters = tuple(sorted(set(normalize_label(text))))
    for character in characters:
        if _find_problem(character):
            message = f"{character!r} is invisible"
            raise UsageError(message, location="--charset", hint="Write the characters without separators.")
    if all(map(_is_mark, characters)):
        message = f"{''.join(characters)!r} are combining marks"
        raise UsageError(message, location="--charset", hint="Add the characters that carry the marks.")
    return characters


def draw_label(characters: Sequence[str], lengths: tuple[int, int], random: np.random.Generator) -> str:
    """Returns a random label in NFC of characters of a set, all equally likely.

    A combining mark follows a character that is none. A label that NFC would compose is drawn again.
    """
    first = [character for character in characters if not _is_mark(character)]
    length = int(random.integers(lengths[0], lengths[1] + 1))
    for _ in range(_ATTEMPTS):
        others = random.integers(len(characters), size=length - 1)
        label = first[random.integers(len(first))] + "".join(characters[number] for number in others)
        if unicodedata.is_normalized("NFC", label) and not _has_two_marks(label):
            return label
    return first[random.integers(len(first))] * length


def needs_shaping(label: str) -> bool:
    """Returns whether the characters of a label cannot be drawn one by one: they are right-to-left, or marks."""
    return any(unicodedata.bidirectional(character) in _RIGHT_TO_LEFT or _is_mark(character) for character in label)


def _has_two_marks(label: str) -> bool:
    return any(_is_mark(first) and _is_mark(second) for first, second in pairwise(label))


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")


def _find_problem(label: str) -> str:
    """Returns why a text cannot be a label; empty if it can."""
    if not label:
        return "is empty"
    if any(unicodedata.category(character)[0] in "ZC" for character in label):
        return "has white space or an invisible character"
    return f"has more than {MAX_LENGTH} characters" if len(label) > MAX_LENGTH else ""
