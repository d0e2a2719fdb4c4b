"""Prints tables and lines of text to standard output."""

import sys
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from schemas.table_config import SHORT_FINGERPRINT
from schemas.terminal.printable import printable

_PIPED_WIDTH = 200
# Shorter cells are not wrapped, so that fingerprints can be copied.
_UNWRAPPED = SHORT_FINGERPRINT


class Printer:
    """Prints lines and tables to standard output.

    Brackets are not markup. Control characters, with which a caption could control a terminal, are escaped.
    """

    def __init__(self) -> None:
        width = None if sys.stdout.isatty() else _PIPED_WIDTH
        self._console = Console(width=width, markup=False, emoji=False, highlight=False)

    def line(self, text: object, style: str = "") -> None:
        self._console.print(Text(printable(text), style=style), soft_wrap=True)

    def table(
        self, title: str, text_headings: Sequence[str], number_headings: Sequence[str], rows: Iterable[Sequence[object]]
    ) -> None:
        """Prints a table under its title if it has rows. Integers get thousands separators; None is printed as a dash.

        The columns of `number_headings` follow those of `text_headings` and are aligned to the right.
        """
        cells = [
            ["–" if value is None else f"{value:,}" if isinstance(value, int) else printable(value) for value in row]
            for row in rows
        ]
        if not cells:
            return
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for number, heading in enumerate(text_headings):
            is_short = all(len(row[number]) <= _UNWRAPPED for row in cells)
            table.add_column(heading, no_wrap=is_short, overflow="fold")
        for heading in number_headings:
            table.add_column(heading, no_wrap=True, justify="right")
        for row in cells:
            table.add_row(*row)
        self.line(title, "bold")
        self._console.print(table)
        self.line("")
