"""Reads records of annotation files one by one, so that any exception costs one record alone."""

from collections.abc import Callable
from typing import TypeVar

from pipelines.datasets.base import FailedRecord
from pipelines.datasets.record_fields import escape_surrogates
from schemas.errors import to_record_error

_SHOWN = 300

_Read = TypeVar("_Read")


def read_record(place: str, read: Callable[[], _Read]) -> _Read | FailedRecord:
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
        failure = to_record_error("parse", error)
        return FailedRecord(place, failure.reason, escape_surrogates(failure.detail.replace("\0", "\\0"))[:_SHOWN])
