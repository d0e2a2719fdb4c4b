"""Shows progress bars on standard error, if it is a terminal and `--quiet` is not set."""

import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

_POLL_SECONDS = 0.25


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} {task.fields['unit']}/s" if task.speed else "")


def is_progress_shown() -> bool:
    """Returns whether standard error is a terminal and `--quiet` is not set."""
    return sys.stderr.isatty() and logging.getLogger("capt").isEnabledFor(logging.INFO)


@contextlib.contextmanager
def progress_bar(label: str, total: int, unit: str) -> Iterator[Callable[[int, str], None]]:
    """Shows a progress bar; yields a function that sets the number of finished units and a note beside the bar."""
    label_column, note_column = TextColumn("{task.description}"), TextColumn("{task.fields[note]}")
    columns = (label_column, BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn(), note_column)
    with Progress(*columns, console=Console(stderr=True), disable=not is_progress_shown()) as progress:
        task = progress.add_task(label, total=total, unit=unit, note="")
        yield lambda done, note: progress.update(task, completed=done, note=note)


@contextlib.contextmanager
def show_progress(label: str, total: int, unit: str, poll: Callable[[], tuple[int, str]]) -> Iterator[None]:
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
