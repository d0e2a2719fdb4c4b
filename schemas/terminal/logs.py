"""Sends log messages to standard error and to a file, and silences the libraries."""

import logging
import os
import sys
import warnings

from schemas.errors import UsageError
from schemas.terminal.printable import printable


class PrintableFormatter(logging.Formatter):
    """Formats messages and tracebacks without characters that could control a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def start_logging(quiet: bool, debug: bool, log_file: str | None) -> None:
    """Starts the log of a command on standard error, and in `log_file`; UsageError if this file cannot be written.

    Without `debug`, the output of libraries is discarded; with `quiet`, only warnings and errors are logged.
    """
    logging.getLogger().addHandler(logging.NullHandler())
    log = logging.getLogger("capt")
    log.setLevel(logging.DEBUG if debug else logging.WARNING if quiet else logging.INFO)
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if log_file:
        location = f"--log-file {log_file}"
        if "://" in log_file:
            raise UsageError("not a local path", location=location, hint="Choose a local path.")
        try:
            handlers.append(logging.FileHandler(log_file, encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"the log cannot be written: {error.strerror}", location=location) from None
    for handler in handlers:
        handler.setFormatter(PrintableFormatter("%(message)s"))
        log.addHandler(handler)
    if not debug:
        _silence_libraries()


def _silence_libraries() -> None:
    """Discards what libraries write to standard error, also from native code."""
    warnings.filterwarnings("ignore")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    own = os.dup(sys.stderr.fileno())
    sys.stderr = os.fdopen(own, "w", buffering=1, encoding="utf-8", errors="backslashreplace")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    for handler in logging.getLogger("capt").handlers:
        if type(handler) is logging.StreamHandler:
            handler.setStream(sys.stderr)
