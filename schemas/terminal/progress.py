"""Progress for people: a bar on standard error where it is a terminal, nothing where `--quiet` or a program asked."""

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
        """Records a second."""
        return Text(f"{task.speed:,.0f} {task.fields['unit']}/s" if task.speed else "")


def is_progress_shown() -> bool:
    """Whether a person watches: standard error is a terminal and `--quiet` was not given."""
    return sys.stderr.isatty() and logging.getLogger("capt").isEnabledFor(logging.INFO)


@contextlib.contextmanager
def progress_bar(label: str, total: int, unit: str) -> Iterator[Callable[[int, str], None]]:
    """A progress bar; the function it gives sets how many of `total` are done, and a note beside the bar."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not is_progress_shown()) as progress:
        task = progress.add_task(label, total=total, unit=unit, note="")
        yield lambda done, note: progress.update(task, completed=done, note=note)


@contextlib.contextmanager
def show_progress(label: str, total: int, unit: str, poll: Callable[[], tuple[int, str]]) -> Iterator[None]:
    """A progress bar that asks `poll` for its count and note a few times a second while the block runs."""
    with progress_bar(label, total, unit) as show:
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(_POLL_SECONDS):
                show(*poll())

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        show(*poll())
