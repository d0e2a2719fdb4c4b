"""Entries of annotation files without the file that they come from."""

from collections.abc import Iterable
from typing import Any

from pipelines.datasets.base import FailedRecord, ImageEntry


def bare(entry: Any) -> Any:
    """An entry without its annotation file and its place in it; Malformed as it is."""
    if isinstance(entry, FailedRecord):
        return entry
    return entry._replace(document="", location="") if isinstance(entry, ImageEntry) else entry._replace(document="")


def bare_entries(entries: Iterable[Any]) -> list[Any]:
    """Several of them."""
    return [bare(entry) for entry in entries]
