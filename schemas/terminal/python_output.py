"""Shows the messages and the progress of a command that Python code calls, as `verbose` sets."""

import contextlib
import logging
from collections.abc import Iterator

from schemas.errors import UsageError
from schemas.terminal.logs import PrintableFormatter
from schemas.terminal.progress import hide_progress, output_stream

SILENT, WITH_PROGRESS, MESSAGES_ONLY = 0, 1, 2


@contextlib.contextmanager
def show_output(verbose: int) -> Iterator[None]:
    """Shows messages and progress bars (1), messages only (2) or warnings only (0) while the block runs.

    Messages go to the log handlers of the program if it has any. Otherwise they go to standard error, in a notebook to
    the output of the cell.

    Raises:
        UsageError: `verbose` has another value.
    """
    if verbose not in (SILENT, WITH_PROGRESS, MESSAGES_ONLY):
        hint = "0: warnings only, 1: progress bars and messages, 2: messages only."
        raise UsageError(f"expected 0, 1 or 2, got {verbose!r}", location="verbose", hint=hint)
    log = logging.getLogger("capt")
    with contextlib.ExitStack() as stack:
        stack.callback(log.setLevel, log.level)
        if verbose == SILENT:
            log.setLevel(logging.WARNING)
        elif not log.isEnabledFor(logging.INFO):
            log.setLevel(logging.INFO)
        if verbose != WITH_PROGRESS:
            stack.enter_context(hide_progress())
        if not log.hasHandlers():
            handler = logging.StreamHandler(output_stream())
            handler.setFormatter(PrintableFormatter("%(message)s"))
            log.addHandler(handler)
            stack.callback(log.removeHandler, handler)
        yield
