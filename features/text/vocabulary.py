"""Vocabularies: words by id, the file that holds them, and the way back from ids to text.

A vocabulary is the list of all words by id, the four special ones first. Its file holds one word a line in UTF-8, line
number = id, each line ended by a newline. Nothing here needs TensorFlow.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from features.io.atomic_files import write
from schemas.errors import StoreError
from schemas.table_config import END, PAD, SPECIAL_TOKENS, START, compute_digest

VOCABULARY_FILE = "vocabulary.txt"


def vocabulary_path(transform_dir: Path) -> Path:
    """Where a saved transform keeps its vocabulary."""
    return transform_dir / "transform_fn" / "assets" / VOCABULARY_FILE


def read_vocabulary(path: Path) -> list[str]:
    """The words by id, special ones first.

    Args:
        path: Path. A vocabulary file, or the directory of a saved transform.

    Raises:
        StoreError: there is no vocabulary, or it is none that `write_vocabulary` would write.
    """
    if path.is_dir():
        path = vocabulary_path(path)
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        raise StoreError("there is no vocabulary", location=str(path)) from None
    except UnicodeDecodeError as error:
        raise StoreError(f"the vocabulary is no UTF-8 text at byte {error.start}", location=str(path)) from None
    if not text.endswith("\n"):
        raise StoreError("the vocabulary is cut off: its last line has no end", location=str(path))
    words = text.split("\n")[:-1]
    check_vocabulary(words, location=str(path))
    return words


def write_vocabulary(path: Path, words: Sequence[str]) -> None:
    """Write the words by id to a file, whole or not at all; StoreError where they are no vocabulary."""
    check_vocabulary(words, location=str(path))
    write(path, "".join(f"{word}\n" for word in words).encode())


def check_vocabulary(words: Sequence[str], *, location: str = "") -> None:
    """StoreError where the words do not begin with the special ones, repeat, or hold white space."""
    if tuple(words[: len(SPECIAL_TOKENS)]) != SPECIAL_TOKENS:
        got = " ".join(words[: len(SPECIAL_TOKENS)])
        raise StoreError(
            f"expected a vocabulary that begins with {' '.join(SPECIAL_TOKENS)}, got {got!r}", location=location
        )
    first_id: dict[str, int] = {}
    for number, word in enumerate(words):
        if word.split() != [word]:
            raise StoreError(f"line {number + 1} of the vocabulary is not one word: {word!r}", location=location)
        if word in first_id:
            raise StoreError(
                f"{word!r} has two ids in the vocabulary: {first_id[word]} and {number}", location=location
            )
        first_id[word] = number


def identify_given_vocabulary(words: Sequence[str]) -> str:
    """`CaptionTableConfig.vocabulary` of a vocabulary that is given, not learned: `given:HEX`, the digest of all
    its words.
    """
    return f"given:{compute_digest(list(words))}"


def detokenize(ids: Iterable[int], words: Sequence[str]) -> str:
    """The words of the ids, joined by spaces, up to the end token; start and padding are left out.

    Args:
        ids: ints in [0, len(words)). A row of tokens, with or without start, end and padding.
        words: str by id. The vocabulary.
    """
    spoken = []
    for number in map(int, ids):
        if number == END:
            break
        if number not in (PAD, START):
            spoken.append(words[number])
    return " ".join(spoken)
