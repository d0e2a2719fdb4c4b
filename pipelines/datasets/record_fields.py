"""Fields of a record as annotation files write them: values by key, text, splits, and captions numbered by image."""

import math
import re
import reprlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from schemas.errors import CaptError, RecordError

MAX_TEXT = 131_072

_SPLITS = {name: name for name in ("train", "val", "test", "unused")} | {"dev": "val", "validation": "val"}
# A split as one word of a file's name. Its words end at digits too: `train2017`. `test-dev` is a part of a test split.
_NAMED = re.compile(
    r"(?<![^\W\d_])(?:(train|training)|(val|valid|validation|dev)|(test|testing)(?:[-_.]?dev)?)(?![^\W\d_])",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class DuplicateKey:
    """Stands for a JSON object in which a key stands twice, so that nobody reads one value of two.

    Args:
        key: The key.
    """

    key: str


def reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any] | DuplicateKey:
    """Makes a JSON object of its pairs: the `object_pairs_hook` of all annotation files.

    Args:
        pairs: Keys and values, in order.

    Returns:
        The object; or what stands for an object with a key twice.
    """
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    return DuplicateKey(next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1))


def read_list(data: Any, key: str, location: str, hint: str) -> Iterator[tuple[str, Any]]:
    """The list under a key of a JSON object, each with its place, `file: images[17]`; CaptError where it is none."""
    if isinstance(data, DuplicateKey):
        raise CaptError(f"the key {abbreviate(data.key)} stands twice", location=location, hint="keep one of the two")
    if not isinstance(data, dict) or not isinstance(data.get(key), list):
        raise CaptError(f"the list {key!r} is missing", location=location, hint=hint)
    for number, record in enumerate(data[key]):
        yield f"{location}: {key}[{number}]", record


def read_value(record: Any, key: str) -> Any:
    """Returns the value under a key of a JSON object.

    Args:
        record: The object.
        key: The key.

    Returns:
        The value.

    Raises:
        RecordError: The record is not an object, lacks the key, or has a key twice.
    """
    if isinstance(record, DuplicateKey):
        raise RecordError("parse", "key comes twice", abbreviate(record.key))
    if not isinstance(record, dict):
        raise RecordError("parse", "no object", abbreviate(record))
    if key not in record:
        raise RecordError("parse", f"no {key}", f"the key {key!r} is missing")
    return record[key]


def read_identifier(record: Any, key: str) -> str:
    """Returns an id as text.

    Args:
        record: A JSON object.
        key: The key of the id.

    Returns:
        The id. A whole number, also one that is written `7.0`, has the same text as the number without a point.

    Raises:
        RecordError: The key is missing, or its value is neither text nor a whole number.
    """
    found = read_value(record, key)
    if isinstance(found, float) and math.isfinite(found) and found.is_integer():
        found = int(found)
    if isinstance(found, bool) or not isinstance(found, str | int):
        raise RecordError("parse", f"bad {key}", f"neither text nor a whole number: {abbreviate(found)}")
    return _bounded(escape_surrogates(found), key)


def read_name(record: Any, key: str) -> str:
    """Returns a name, such as a file's.

    Args:
        record: A JSON object.
        key: The key of the name.

    Returns:
        The name.

    Raises:
        RecordError: The key is missing, or its value is not text.
    """
    found = read_value(record, key)
    if not isinstance(found, str):
        raise RecordError("parse", f"no {key}", f"not text: {abbreviate(found)}")
    return _bounded(escape_surrogates(found), key)


def read_caption(found: Any) -> str:
    """Returns a caption of a JSON file.

    Args:
        found: The value that stands where a caption should.

    Returns:
        The caption.

    Raises:
        RecordError: The value is not text. Words such as "null" are text; null, NaN, lists and objects are not.
    """
    if not isinstance(found, str):
        raise RecordError("parse", "caption is no text", abbreviate(found))
    return found


def abbreviate(found: Any) -> str:
    """Describes a value of any size in a few characters, for a message."""
    return reprlib.repr(found)


def escape_surrogates(value: Any) -> str:
    """The value as text that any table can hold: half a surrogate pair, which JSON can write, as it is written."""
    text = str(value)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def parse_split_name(text: str) -> str | None:
    """The split that a field names, None where it is empty; ValueError naming the known ones. Case does not count."""
    name = text.strip().lower()
    if name and name not in _SPLITS:
        raise ValueError(f"{abbreviate(text)} is none of {', '.join(_SPLITS)}")
    return _SPLITS[name] if name else None


def read_split_field(found: Any) -> str | None:
    """Returns the split that a field names.

    Args:
        found: The field; None or empty text if the record names no split.

    Returns:
        The split; None if the record names none.

    Raises:
        RecordError: The field is not text, or names an unknown split.
    """
    if found is None:
        return None
    try:
        return parse_split_name(found if isinstance(found, str) else abbreviate(found))
    except ValueError as error:
        raise RecordError("parse", "unknown split", str(error)) from None


def _bounded(text: str, key: str) -> str:
    if not text.strip():
        raise RecordError("parse", f"no {key}", "the text is empty")
    if "\0" in text:
        raise RecordError("parse", "NUL byte", f"{key}: {abbreviate(text)}")
    if len(text) > MAX_TEXT:
        raise RecordError("parse", "too long", f"{key}: {len(text):,} characters, the limit is {MAX_TEXT:,}")
    return text


def find_split_in_name(name: str) -> str | None:
    """Returns the split that a file's name states, in its last part.

    Args:
        name: The file's path.

    Returns:
        `train`, `val` or `test`; None if the name has no such word, or two that differ.
    """
    found = {match.lastindex for match in _NAMED.finditer(name.rsplit("/", 1)[-1])}
    return ("train", "val", "test")[(found.pop() or 1) - 1] if len(found) == 1 else None


class CaptionCounter:
    """Numbers captions within their image, from 0, whatever lies between them."""

    def __init__(self) -> None:
        self._next: Counter[str] = Counter()

    def take(self, image_id: str) -> str:
        """The next number of an image."""
        self._next[image_id] += 1
        return str(self._next[image_id] - 1)
