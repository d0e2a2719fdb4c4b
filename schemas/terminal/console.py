"""Tables for people, on standard output: commands whose purpose is to show print what they show there."""

import sys
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from schemas.table_config import SHORT_FINGERPRINT
from schemas.terminal.printable import printable

_PIPED_WIDTH = 200
_WHOLE = SHORT_FINGERPRINT  # cells this short are not broken, so that fingerprints can be copied


class Printer:
    """Prints headings, lines and tables to standard output.

    Texts are shown as they are: brackets are not markup, and control characters, with which a caption could steer
    a terminal, are escaped.
    """

    def __init__(self) -> None:
        width = None if sys.stdout.isatty() else _PIPED_WIDTH
        self._console = Console(width=width, markup=False, emoji=False, highlight=False)

    def line(self, text: object, style: str = "") -> None:
        """Print one line."""
        self._console.print(Text(printable(text), style=style), soft_wrap=True)

    def table(self, title: str, words: Sequence[str], numbers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Print a table under its title; nothing where it has no rows.

        Args:
            title: str. What the rows are.
            words: sequence of str. Headings of the first columns.
            numbers: sequence of str. Headings of the other columns, which are aligned to the right.
            rows: iterable of rows, a value a column. Ints get separators; None shows as a dash.
        """
        cells = [[_cell(value) for value in row] for row in rows]
        if not cells:
            return
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for number, heading in enumerate(words):
            whole = all(len(row[number]) <= _WHOLE for row in cells)
            table.add_column(heading, no_wrap=whole, overflow="fold")
        for heading in numbers:
            table.add_column(heading, no_wrap=True, justify="right")
        for row in cells:
            table.add_row(*row)
        self.line(title, "bold")
        self._console.print(table)
        self.line("")


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else printable(value)
