"""Parses JSON of files that a user may have edited or that may be corrupt."""

import json
from typing import Any


def parse_json(data: bytes | str) -> Any:
    """Parses JSON.

    Args:
        data: The text, or its bytes in UTF-8.

    Raises:
        ValueError: The text is not UTF-8 or not JSON, is nested too deeply, or an object repeats a key.
    """
    try:
        return json.loads(data, object_pairs_hook=_check_keys)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _check_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("a key of an object is repeated")
    return entries
