"""Reads, writes and checks vocabularies, and converts token IDs to text without TensorFlow.

A vocabulary is the list of words by token ID, special tokens first. Its file has one word per line in UTF-8.
"""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path

from features.io.atomic_files import write
from schemas.errors import StoreError
from schemas.table_config import END, PAD, SPECIAL_TOKENS, START, compute_digest

VOCABULARY_FILE = "vocabulary.txt"


def vocabulary_path(transform_dir: Path) -> Path:
    """Returns the path of the vocabulary of a saved transform."""
    return transform_dir / "transform_fn" / "assets" / VOCABULARY_FILE


def read_vocabulary(path: Path) -> list[str]:
    """Reads the words by token ID from a vocabulary file, or from the directory of a saved transform.

    Raises:
        StoreError: The file is missing, or is not a vocabulary.
    """
    if path.is_dir():
        path = vocabulary_path(path)
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        raise StoreError("the vocabulary is missing", location=str(path)) from None
    except UnicodeDecodeError as error:
        raise StoreError(f"the vocabulary is not UTF-8 at byte {error.start}", location=str(path)) from None
    if not text.endswith("\n"):
        raise StoreError("the vocabulary is truncated: its last line is incomplete", location=str(path))
    words = text.split("\n")[:-1]
    check_vocabulary(words, location=str(path))
    return words


def write_vocabulary(path: Path, words: Sequence[str]) -> None:
    """Writes the words by token ID to a file atomically.

    Raises:
        StoreError: The words are not a vocabulary.
    """
    check_vocabulary(words, location=str(path))
    write(path, "".join(f"{word}\n" for word in words).encode())


def check_vocabulary(words: Sequence[str], *, location: str = "") -> None:
    """Checks that words start with the special tokens, are unique and contain no white space."""
    if tuple(start := words[: len(SPECIAL_TOKENS)]) != SPECIAL_TOKENS:
        message = f"expected a vocabulary that starts with {' '.join(SPECIAL_TOKENS)}, got {' '.join(start)!r}"
        raise StoreError(message, location=location)
    ids: dict[str, int] = {}
    for number, word in enumerate(words):
        if word.split() != [word]:
            raise StoreError(f"line {number + 1} of the vocabulary is not one word: {word!r}", location=location)
        if word in ids:
            raise StoreError(f"{word!r} has two token IDs: {ids[word]} and {number}", location=location)
        ids[word] = number


def rank_vocabulary(counts: Iterable[tuple[int, bytes]]) -> list[str]:
    """Returns the vocabulary of words, UTF-8, with their counts: special tokens, then words by frequency.

    Words of equal frequency are in reverse order of their bytes.
    """
    return [*SPECIAL_TOKENS, *(word.decode() for _, word in sorted(counts, reverse=True))]


def identify_given_vocabulary(words: Sequence[str]) -> str:
    """Returns `given:HEX`: `CaptionTableConfig.vocabulary` of a reused vocabulary, by the digest of its words."""
    return f"given:{compute_digest(list(words))}"


def detokenize(ids: Iterable[int], words: Sequence[str]) -> str:
    """Joins the words of one caption's token IDs up to the end token, if any, without start and padding tokens."""
    content = itertools.takewhile(lambda token_id: token_id != END, map(int, ids))
    return " ".join(words[token_id] for token_id in content if token_id not in (PAD, START))
