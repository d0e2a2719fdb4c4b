"""Runs commands and Python programs, each in a process of its own, forked from one that has imported the libraries.

The imports take longer than most commands. Reads one JSON object per line, the requests of `tests.commands`, and
answers each with one number: a process ID, or an exit code, or -1000 while a process runs.
"""

import atexit
import gc
import json
import os
import signal
import sys
import traceback
from typing import Any

import apache_beam.runners.portability.fn_api_runner.fn_runner  # noqa: F401
import keras  # noqa: F401
import tensorflow  # noqa: F401

import capt
import trainer.task_registry  # noqa: F401

RUNNING = -1000


def serve() -> None:
    """Answers the requests one after another."""
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            process, status = os.waitpid(request["wait"], os.WNOHANG if request["poll"] else 0)
            answer = os.waitstatus_to_exitcode(status) if process else RUNNING
        else:
            answer = os.fork()
            if answer == 0:
                os._exit(_run_and_end(request))
        print(answer, flush=True)


def _run_and_end(request: dict[str, Any]) -> int:
    """Returns the exit code of a process. What it imported need not be freed."""
    code: Any = 0
    try:
        _run(request)
    except SystemExit as error:
        code = error.code
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code if isinstance(code, int) else int(code is not None)


def _run(request: dict[str, Any]) -> None:
    signal.alarm(request["seconds"])
    os.chdir(request["directory"])
    os.environ.update(request["environment"])
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND if descriptor else os.O_RDONLY
        os.dup2(os.open(request[name], flags | os.O_NOCTTY, 0o644), descriptor)
    exec(compile(request["program"], "<program>", "exec"), {"__name__": "__main__"})
    if request["arguments"] is not None:
        sys.argv = ["capt", *request["arguments"]]
        capt.main()


if __name__ == "__main__":
    serve()
