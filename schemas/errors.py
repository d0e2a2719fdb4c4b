"""The family of errors that capt raises on purpose: what went wrong, where, and how to mend it."""

import logging
import re
import traceback
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

_log = logging.getLogger("capt")
_FIRST_WORD = re.compile(r"\A[a-z]+(?=[ ,;:])")


class ExitCode(IntEnum):
    """Exit codes that scripts may rely on."""

    DONE = 0
    """The command succeeded. Nothing new and a rejected challenger are successes, too; `--json` tells them apart."""
    FAILED = 1
    """The command failed. The error states the location, the problem and a hint."""
    USAGE = 2
    """An option, a configuration file or a path is wrong. Nothing was written."""
    TOO_MANY_FAILURES = 3
    """More records failed than `--max-failures` allows, or no image has a result. Good rows are committed."""
    DAMAGED = 4
    """`capt store verify` or a reader found a corrupt or missing file."""
    LOCKED = 5
    """Another process runs the same job. The error names it."""
    INTERRUPTED = 130
    """The command was interrupted. The same command resumes."""


class CaptError(Exception):
    """A failure that a person can act on, printed as one line.

    Args:
        message: str. What is wrong, in the user's terms.
        location: str. The file, place or option it concerns; empty where nothing narrower is known.
        hint: str. What the user can do about it; empty where nothing is known to help.
        summary: mapping or None. What the command found all the same, printed before the error.
    """

    exit_code = ExitCode.FAILED

    def __init__(
        self, message: str, *, location: str = "", hint: str = "", summary: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message, location, hint)
        self.message = message
        self.location = location
        self.hint = hint
        self.summary = summary

    def __str__(self) -> str:
        problem = self.message if self.message.endswith((".", "!", "?")) else f"{self.message}."
        hint = _FIRST_WORD.sub(lambda word: word[0].capitalize(), self.hint, count=1)
        hint = hint if not hint or hint.endswith((".", "!", "?")) else f"{hint}."
        return " ".join(f"{self.location}: {problem} {hint}".removeprefix(": ").split())


class UsageError(CaptError):
    """The command was called wrongly."""

    exit_code = ExitCode.USAGE


class TooManyFailuresError(CaptError):
    """More records failed than `--max-failures` allows; the good rows are committed.

    Args:
        message: str. How many of how many failed.
        summary: mapping. The run's figures, printed all the same.
        location: str. The run report.
    """

    exit_code = ExitCode.TOO_MANY_FAILURES

    def __init__(self, message: str, summary: Mapping[str, Any], *, location: str) -> None:
        super().__init__(message, location=location, hint="mend the records, or raise --max-failures", summary=summary)


class NoUsableImageError(CaptError):
    """None of the images that were named has an answer.

    Args:
        images: How many images were named.
        first: Why the first one has none.
        summary: The answers, printed all the same.
    """

    exit_code = ExitCode.TOO_MANY_FAILURES

    def __init__(self, images: int, first: str, summary: Mapping[str, Any]) -> None:
        message = f"none of {images} images has an answer; the first: {first}"
        super().__init__(message, hint="check the names of the images", summary=summary)


class StoreError(CaptError):
    """A store, table or run directory that cannot be used as it is."""


class MissingKeyError(StoreError, KeyError):
    """A table has no row of the key that was asked for."""

    __str__ = CaptError.__str__


class CorruptFileError(StoreError):
    """Stored bytes differ from what their manifest names."""

    exit_code = ExitCode.DAMAGED


class RecordError(CaptError):
    """One record cannot be used; the others go on.

    Args:
        stage: str. One of `find`, `download`, `read`, `decode`, `extract`, `store`, `parse`.
        reason: str. One word or short phrase that groups like failures, such as `truncated`.
        detail: str. What exactly was seen.
        permanent: bool. Whether the same bytes would fail again.
    """

    def __init__(self, stage: str, reason: str, detail: str = "", *, permanent: bool = True) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason, location=stage)
        self.stage = stage
        self.reason = reason
        self.detail = detail
        self.permanent = permanent

    def __reduce__(self) -> tuple[object, ...]:
        return (_record_error, (self.stage, self.reason, self.detail, self.permanent))


def to_record_error(stage: str, error: Exception) -> RecordError:
    """Turns any exception raised while one record is read into the failure of that record, and logs its traceback.

    Args:
        stage: Stage of the record, as in `RecordError`.
        error: The exception.

    Returns:
        `error` itself if it is a `RecordError`; otherwise a `RecordError` with the reason `unexpected: TYPE`. It is not
        permanent, because another version of capt or of a library may read the same bytes.
    """
    if isinstance(error, RecordError):
        return error
    lines = "".join(traceback.format_exception(error)).encode(errors="backslashreplace").decode()
    _log.warning("Unexpected %s in stage %s.\n%s", type(error).__name__, stage, lines)
    return RecordError(stage, f"unexpected: {type(error).__name__}", str(error), permanent=False)


def _record_error(stage: str, reason: str, detail: str, permanent: bool) -> RecordError:
    return RecordError(stage, reason, detail, permanent=permanent)
