"""Prints the result of a command as a plain table."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from schemas.terminal.printable import printable

_MAX_LISTED = 100


def print_summary(result: Mapping[str, Any]) -> None:
    """Prints the result of a command as a table on standard error."""
    table = Table(show_header=False, box=None)
    for key, value in result.items():
        if value or isinstance(value, (int, float)):
            table.add_row(key, Text(_summarize(value)))
    Console(stderr=True).print(table)


def _summarize(value: Any) -> str:
    """Returns a value of a result as text: `train 1,200, val 300`."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_summarize(one)}" for key, one in value.items())
    if isinstance(value, (list, tuple)):
        separator = "; " if any(isinstance(one, Mapping) for one in value) else ", "
        more = [f"and {len(value) - _MAX_LISTED:,} more (--json lists all)"] if len(value) > _MAX_LISTED else []
        return separator.join([*map(_summarize, value[:_MAX_LISTED]), *more])
    is_count = isinstance(value, int) and not isinstance(value, bool)
    return f"{value:,}" if is_count else printable(value)
