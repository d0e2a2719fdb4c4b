"""Reads the fields of a record: values by key, text, IDs and splits.

Every `read_*` function raises `RecordError` on a wrong field, and `read_record` turns it into a `FailedRecord`.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from reprlib import repr as abbreviate
from typing import Any, TypeVar

from features.text.lines import FailedRecord, Line
from schemas.errors import RecordError, to_record_error
from schemas.tables import SPLITS

MAX_TEXT = 131_072

_MAX_DETAIL = 300
_SPLITS = {name: name for name in SPLITS} | {"dev": "val", "validation": "val"}
# The words of the library `datasets`. Words also end at digits: `train2017`. `test-dev` is part of a test split.
_SPLIT_WORD = r"(?:(train|training)|(val|valid|validation|dev)|(test|testing|eval|evaluation)(?:[-_.]?dev)?)"
_SPLIT_NAME = re.compile(_SPLIT_WORD, re.IGNORECASE)
_SPLIT_IN_NAME = re.compile(rf"(?<![^\W\d_]){_SPLIT_WORD}(?![^\W\d_])", re.IGNORECASE)

_Read = TypeVar("_Read")


def read_record(location: str, read: Callable[[], _Read]) -> _Read | FailedRecord:
    """Calls `read`. Returns a failed record with this location if it raises any exception."""
    try:
        return read()
    except Exception as error:
        return build_failed_record(location, to_record_error("parse", error))


def build_failed_record(location: str, error: RecordError) -> FailedRecord:
    """Returns the failed record of an error, with a printable detail of bounded length."""
    detail = escape_surrogates(error.detail.replace("\0", "\\0"))[:_MAX_DETAIL]
    return FailedRecord(location, error.reason, detail)


# === JSON objects ===


@dataclass(frozen=True)
class DuplicateKey:
    """Represents a JSON object with a repeated key, so that neither value is used."""

    key: str


def reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any] | DuplicateKey:
    """Builds a JSON object from its pairs: the `object_pairs_hook` for all annotation files."""
    record = dict(pairs)
    if len(record) == len(pairs):
        return record
    return DuplicateKey(next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1))


def parse_json_line(line: Line) -> Any:
    """Returns the JSON value of a line; a failed record if it is not JSON."""
    try:
        return json.loads(line.text, object_pairs_hook=reject_duplicate_keys)
    except (ValueError, RecursionError) as error:
        return line.fail("not JSON", str(error))


def read_value(record: Any, key: str) -> Any:
    if isinstance(record, DuplicateKey):
        raise RecordError("parse", "duplicate key", abbreviate(record.key))
    if not isinstance(record, dict):
        raise RecordError("parse", "not an object", abbreviate(record))
    if key not in record:
        raise RecordError("parse", f"no {key}", f"the key {key!r} is missing")
    return record[key]


def read_identifier(record: Any, key: str) -> str:
    """Returns an ID as text. A whole number has the same text with and without a point (`7`, `7.0`)."""
    found = read_value(record, key)
    if isinstance(found, float) and math.isfinite(found) and found.is_integer():
        found = int(found)
    if isinstance(found, bool) or not isinstance(found, str | int):
        raise RecordError("parse", f"bad {key}", f"neither text nor a whole number: {abbreviate(found)}")
    return _check_text(escape_surrogates(found), key)


def read_name(record: Any, key: str) -> str:
    found = read_value(record, key)
    if not isinstance(found, str):
        raise RecordError("parse", f"no {key}", f"not text: {abbreviate(found)}")
    return _check_text(escape_surrogates(found), key)


def read_caption(found: Any) -> str:
    """Returns a caption. A string such as "null" is text; null, NaN, lists and objects are not."""
    if not isinstance(found, str):
        raise RecordError("parse", "caption is not text", abbreviate(found))
    return found


def check_caption(caption: str) -> None:
    """Raises RecordError for a caption that a table cannot store."""
    if not caption.strip():
        raise RecordError("parse", "empty", "the caption has no text")
    if len(caption) > MAX_TEXT:
        raise RecordError("parse", "too long", f"{len(caption):,} characters, the limit is {MAX_TEXT:,}")
    if "\0" in caption:
        raise RecordError("parse", "NUL byte", f"at character {caption.index(chr(0))}")
    try:
        caption.encode()
    except UnicodeEncodeError as error:
        detail = f"not UTF-8, or an unpaired surrogate, at character {error.start}"
        raise RecordError("parse", "invalid text", detail) from None


def _check_text(text: str, key: str) -> str:
    if not text.strip():
        raise RecordError("parse", f"no {key}", "the text is empty")
    if "\0" in text:
        raise RecordError("parse", "NUL byte", f"{key}: {abbreviate(text)}")
    if len(text) > MAX_TEXT:
        raise RecordError("parse", "too long", f"{key}: {len(text):,} characters, the limit is {MAX_TEXT:,}")
    return text


def escape_surrogates(value: Any) -> str:
    """Returns the value as text with escaped unpaired surrogates, so that any table can store it."""
    text = str(value)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


# === Splits ===


def parse_split_name(text: str) -> str | None:
    """Returns the split that a text names, ignoring case; None if it is empty. An unknown split is a ValueError."""
    name = text.strip().lower()
    if name and name not in _SPLITS:
        raise ValueError(f"{abbreviate(text)} is none of {', '.join(_SPLITS)}")
    return _SPLITS[name] if name else None


def read_split_field(found: Any) -> str | None:
    """Returns the split that a field names; None if the field is None or empty."""
    if found is None:
        return None
    try:
        return parse_split_name(found if isinstance(found, str) else abbreviate(found))
    except ValueError as error:
        raise RecordError("parse", "unknown split", str(error)) from None


def find_split_in_name(path: str) -> str | None:
    """Returns `train`, `val` or `test` if the file name states one of them; None if it states none or several."""
    found = {match.lastindex for match in _SPLIT_IN_NAME.finditer(path.rsplit("/", 1)[-1])}
    return ("train", "val", "test")[(found.pop() or 1) - 1] if len(found) == 1 else None


def is_split_name(name: str) -> bool:
    """Returns whether the whole name is a word for a split, as `find_split_in_name` finds them."""
    return _SPLIT_NAME.fullmatch(name) is not None
