"""Summarizes a run, and decides whether too many records failed."""

from collections.abc import Callable
from typing import Any

from schemas.errors import CaptError, TooManyFailuresError, UsageError

STATUSES = ("ok", "cached", "duplicate", "failed")


def build_summary(counts: dict[str, int], reasons: dict[str, int]) -> dict[str, Any]:
    """Returns the number of inputs, in total and by status, and the failure reasons.

    Raises:
        CaptError: A record has no final status.
    """
    unknown = set(counts) - set(STATUSES)
    if unknown:
        raise CaptError(f"{sum(counts[status] for status in unknown)} records have no status. This is a bug in capt")
    by_status = {status: counts.get(status, 0) for status in STATUSES}
    return {"input": sum(by_status.values()), **by_status, "reasons": reasons}


def parse_max_failures(text: str) -> Callable[[int], float]:
    """Parses `--max-failures`, a percentage such as `5%` or a count.

    Returns:
        A function from the number of records to the number that may fail.
    """
    hint = "Write 5% or 100, for example."
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        raise UsageError(f"cannot parse {text!r}", location="--max-failures", hint=hint) from None
    if not value >= 0:
        raise UsageError(f"{text} is not a percentage or count", location="--max-failures", hint=hint)
    return (lambda records: records * value / 100) if text.endswith("%") else (lambda _: value)


def check_failures(summary: dict[str, Any], max_failures: Callable[[int], float]) -> None:
    """Checks the number of failed records.

    Raises:
        TooManyFailuresError: More records failed than allowed. It carries the summary.
    """
    failed, records = summary["failed"], summary["input"]
    if failed > max_failures(records):
        reasons = ", ".join(f"{count} {reason}" for reason, count in list(summary["reasons"].items())[:3])
        message = f"{failed} of {records} records failed ({reasons}). The others are committed"
        raise TooManyFailuresError(message, summary, location=summary["report"])
