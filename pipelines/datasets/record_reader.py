"""Reads records of annotation files one by one, so that any exception costs one record alone."""

from collections.abc import Callable
from typing import TypeVar

from pipelines.datasets.base import MalformedRecord
from pipelines.datasets.record_fields import read_text
from schemas.errors import unexpected

_SHOWN = 300

_Read = TypeVar("_Read")


def read_record(place: str, read: Callable[[], _Read]) -> _Read | MalformedRecord:
    """Reads one record.

    Args:
        place: File and place of the record, `captions.csv:17`.
        read: Reads the record. It raises `RecordError` with a reason if the record is wrong.

    Returns:
        The record; or, after any exception, a failed record with the reason.
    """
    try:
        return read()
    except Exception as error:
        failure = unexpected("parse", error)
        return MalformedRecord(place, failure.reason, read_text(failure.detail.replace("\0", "\\0"))[:_SHOWN])
