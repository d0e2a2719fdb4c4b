"""Limits the failed records of a job, as `--max-failures` states."""

from collections.abc import Callable
from typing import Any

from schemas.errors import TooManyFailuresError, UsageError


def parse_max_failures(text: str) -> Callable[[int], float]:
    """Parses `--max-failures` (`5%` or a count) to a function from the number of records to the allowed failures."""
    hint = "Write 5% or 100, for example."
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        raise UsageError(f"cannot parse {text!r}", location="--max-failures", hint=hint) from None
    if not value >= 0:
        raise UsageError(f"{text} is not a percentage or count", location="--max-failures", hint=hint)
    return (lambda records: records * value / 100) if text.endswith("%") else (lambda _: value)


def check_failures(summary: dict[str, Any], max_failures: Callable[[int], float]) -> None:
    """Raises TooManyFailuresError, which carries the summary, if more records failed than allowed."""
    failed, records = summary["failed"], summary["input"]
    if failed > max_failures(records):
        reasons = ", ".join(f"{count} {reason}" for reason, count in list(summary["reasons"].items())[:3])
        message = f"{failed} of {records} records failed ({reasons}). The others are committed"
        raise TooManyFailuresError(message, summary, location=summary["report"])
