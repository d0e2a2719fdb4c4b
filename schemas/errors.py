"""Defines the exit codes and the errors that capt raises on purpose: location, problem and hint."""

import errno
import logging
import re
import traceback
from collections.abc import Mapping
from enum import IntEnum
from functools import partial
from typing import Any

# Of a file operation that permissions or a read-only file system prevent.
ACCESS_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)

_log = logging.getLogger("capt")
REPAIR_HINT = "Run `capt store verify STORE`, then the same `capt prepare` command again."
_FIRST_WORD = re.compile(r"\A[a-z]+(?=[ ,;:])")


class ExitCode(IntEnum):
    """Exit codes that scripts may rely on."""

    DONE = 0
    """The command succeeded. A run without new data and a rejected challenger are successes, too; see `--json`."""
    FAILED = 1
    """The command failed. The error states the location, the problem and a hint."""
    USAGE = 2
    """An option, a configuration file or a path is wrong. No data was written; a new store may have been created."""
    TOO_MANY_FAILURES = 3
    """More records failed than `--max-failures` allows, or no image has a result. Usable rows are committed."""
    CORRUPT = 4
    """`capt store verify` or a reader found a corrupt or missing file."""
    LOCKED = 5
    """Another process runs the same job. The error names it."""
    INTERRUPTED = 130
    """The command was interrupted. The same command resumes."""


class CaptError(Exception):
    """An error that a user can fix, printed as one line of the form `location: problem. Hint.`.

    Args:
        message: The problem, in the user's terms.
        location: The file, directory, URI or option; empty if unknown.
        hint: Fix that the user can apply; empty if no fix is known.
        summary: The partial result of the command, if any, as its printer accepts it. It is printed before the error.
    """

    exit_code = ExitCode.FAILED

    def __init__(
        self, message: str, *, location: str = "", hint: str = "", summary: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message, location, hint)
        self.message, self.location, self.hint, self.summary = message, location, hint, summary

    def __str__(self) -> str:
        problem = self.message if self.message.endswith((".", "!", "?")) else f"{self.message}."
        hint = _FIRST_WORD.sub(lambda word: word[0].capitalize(), self.hint, count=1)
        hint = hint if not hint or hint.endswith((".", "!", "?")) else f"{hint}."
        return " ".join(f"{self.location}: {problem} {hint}".removeprefix(": ").split())


class UsageError(CaptError):
    """An option, a configuration file or a path is wrong."""

    exit_code = ExitCode.USAGE


class TooManyFailuresError(CaptError):
    """More records failed than `--max-failures` allows. The usable rows are committed; `location` is the run report."""

    exit_code = ExitCode.TOO_MANY_FAILURES

    def __init__(self, message: str, summary: Mapping[str, Any], *, location: str) -> None:
        super().__init__(message, location=location, hint="Fix the records, or raise --max-failures.", summary=summary)


class NoUsableImageError(CaptError):
    """None of the given images could be used; `first` is the problem of the first one."""

    exit_code = ExitCode.TOO_MANY_FAILURES

    def __init__(self, images: int, first: str, summary: Mapping[str, Any]) -> None:
        message = f"none of {images} images could be used; the first: {first}"
        super().__init__(message, hint="Check the paths and formats of the images.", summary=summary)


class StoreError(CaptError):
    """A store, table or run is missing, incompatible, or does not fit the command."""


class MissingKeyError(StoreError, KeyError):
    """A table does not contain the requested key."""

    __str__ = CaptError.__str__


class CorruptFileError(StoreError):
    """A stored file is missing, or differs from its manifest."""

    exit_code = ExitCode.CORRUPT


class RecordError(CaptError):
    """One record cannot be used; processing of the others continues.

    Args:
        stage: `find`, `download`, `read`, `decode`, `extract`, `store` or `parse`.
        reason: A word or short phrase that groups similar failures, such as `truncated`.
        detail: The problem of this record.
        permanent: Whether the same bytes would fail again.
    """

    def __init__(self, stage: str, reason: str, detail: str = "", *, permanent: bool = True) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason, location=stage)
        self.stage, self.reason, self.detail, self.permanent = stage, reason, detail, permanent

    def __reduce__(self) -> tuple[object, ...]:
        return partial(RecordError, permanent=self.permanent), (self.stage, self.reason, self.detail)


def to_record_error(stage: str, error: Exception) -> RecordError:
    """Returns the failure of one record: `error` itself, or for an unexpected one, which is logged, `unexpected: TYPE`.

    An unexpected failure is not permanent, because another version of capt or of a library may read the same bytes.
    """
    if isinstance(error, RecordError):
        return error
    lines = "".join(traceback.format_exception(error)).encode(errors="backslashreplace").decode()
    _log.warning("Unexpected %s in stage %s.\n%s", type(error).__name__, stage, lines)
    return RecordError(stage, f"unexpected: {type(error).__name__}", str(error), permanent=False)
