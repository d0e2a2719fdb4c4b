"""Shows progress bars on a terminal or in a notebook, unless `--quiet` or `verbose` hides them."""

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from schemas.terminal.printable import printable

_POLL_SECONDS = 0.25
_BAR_WIDTH = 20
_is_hidden = ContextVar("is_hidden", default=False)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} {task.fields['unit']}/s" if task.speed else "")


def is_progress_shown() -> bool:
    """Returns whether there is a terminal or a notebook to show progress on, and nothing hides it."""
    if _is_hidden.get() or not logging.getLogger("capt").isEnabledFor(logging.INFO):
        return False
    return is_notebook() or sys.stderr.isatty()


def is_notebook() -> bool:
    """Returns whether the program is a notebook, of Jupyter or Colab."""
    ipython = sys.modules.get("IPython")
    return hasattr(ipython.get_ipython(), "kernel") if ipython else False


def output_stream() -> TextIO:
    """Returns the stream for messages: standard error, or in a notebook, which colors it red, standard output."""
    return sys.stdout if is_notebook() else sys.stderr


@contextlib.contextmanager
def hide_progress() -> Iterator[None]:
    """Shows no progress bar while the block runs."""
    token = _is_hidden.set(True)
    try:
        yield
    finally:
        _is_hidden.reset(token)


def progress_bar(
    label: str, total: int | None, unit: str
) -> contextlib.AbstractContextManager[Callable[[int, str], None]]:
    """Shows a progress bar; yields a function that sets the number of finished units and a note beside the bar.

    `total` is None if the number of units is unknown.
    """
    show = _notebook_bar if is_notebook() and is_progress_shown() else _terminal_bar
    return show(label, total, unit)


@contextlib.contextmanager
def _terminal_bar(label: str, total: int | None, unit: str) -> Iterator[Callable[[int, str], None]]:
    label_column, note_column = TextColumn("{task.description}"), TextColumn("{task.fields[note]}")
    columns = (label_column, BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn(), note_column)
    with Progress(*columns, console=Console(stderr=True), disable=not is_progress_shown()) as progress:
        task = progress.add_task(label, total=total, unit=unit, note="")
        yield lambda done, note: progress.update(task, completed=done, note=note)


@contextlib.contextmanager
def _notebook_bar(label: str, total: int | None, unit: str) -> Iterator[Callable[[int, str], None]]:
    """Shows a bar of text that is overwritten in place and removed at the end; it needs no widgets."""
    stream, shown, width = output_stream(), 0.0, 0

    def write(line: str) -> None:
        nonlocal width
        stream.write(f"\r{line.ljust(width)}")
        stream.flush()
        width = len(line)

    def update(done: int, note: str) -> None:
        nonlocal shown
        if time.monotonic() - shown < _POLL_SECONDS:
            return
        shown = time.monotonic()
        counts = f"{done:,}"
        if total is not None:
            filled = _BAR_WIDTH * done // max(1, total)
            counts = f"{'█' * filled}{'░' * (_BAR_WIDTH - filled)} {done:,}/{total:,}"
        write(printable(f"{label} {counts} {unit}{f', {note}' if note else ''}"))

    try:
        yield update
    finally:
        if width:
            write("")
            stream.write("\r")
            stream.flush()


@contextlib.contextmanager
def show_progress(label: str, total: int | None, unit: str, poll: Callable[[], tuple[int, str]]) -> Iterator[None]:
    """Shows a progress bar while the block runs; `poll` returns the number of finished units and a note."""
    with progress_bar(label, total, unit) as update:
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(_POLL_SECONDS):
                update(*poll())

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        update(*poll())
