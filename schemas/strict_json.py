"""Parses JSON of files that a user may have edited or that may be corrupt."""

import json
from typing import Any


def parse_json(data: bytes | str) -> Any:
    """Parses JSON; raises ValueError if it is not UTF-8, not JSON, nested too deeply, or repeats a key."""
    try:
        return json.loads(data, object_pairs_hook=_check_keys)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _check_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("a key of an object is repeated")
    return entries
