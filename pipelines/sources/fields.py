"""Fields of a record as annotation files write them: values by key, text, splits, and captions numbered by image."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from schemas.errors import CaptError

_SPLITS = {name: name for name in ("train", "val", "test", "unused")} | {"dev": "val", "validation": "val"}


def records(data: Any, key: str, where: str, mend: str) -> Iterator[tuple[str, Any]]:
    """The list under a key of a JSON object, each with its place, `file: images[17]`; CaptError where it is none."""
    if not isinstance(data, dict) or not isinstance(data.get(key), list):
        raise CaptError(f"the list {key!r} is missing", where=where, mend=mend)
    for number, record in enumerate(data[key]):
        yield f"{where}: {key}[{number}]", record


def value(record: Any, key: str, place: str, mend: str) -> Any:
    """The value under a key of a JSON object; CaptError with the place where there is none."""
    if not isinstance(record, dict) or key not in record:
        raise CaptError(f"the key {key!r} is missing", where=place, mend=mend)
    return record[key]


def text_of(value: Any) -> str:
    """The value as text that any table can hold: half a surrogate pair, which JSON can write, as it is written."""
    text = str(value)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def split_of(text: str) -> str | None:
    """The split that a field names, None where it is empty; ValueError naming the known ones. Case does not count."""
    name = text.strip().lower()
    if name and name not in _SPLITS:
        raise ValueError(f"{text!r} is none of {', '.join(_SPLITS)}")
    return _SPLITS[name] if name else None


class Numbering:
    """Numbers captions within their image, from 0, whatever lies between them."""

    def __init__(self) -> None:
        self._next: Counter[str] = Counter()

    def take(self, image_id: str) -> str:
        """The next number of an image."""
        self._next[image_id] += 1
        return str(self._next[image_id] - 1)
