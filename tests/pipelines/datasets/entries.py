"""Removes annotation file and location from entries, for comparisons."""

from collections.abc import Iterable
from typing import Any

from features.text.lines import FailedRecord
from pipelines.datasets.base import ImageEntry


def bare(entry: Any) -> Any:
    """Returns an entry without annotation file and location; a failed record unchanged."""
    if isinstance(entry, FailedRecord):
        return entry
    return entry._replace(document="", location="") if isinstance(entry, ImageEntry) else entry._replace(document="")


def bare_entries(entries: Iterable[Any]) -> list[Any]:
    """Returns several entries without annotation file and location."""
    return [bare(entry) for entry in entries]
