"""Hooks: the outcome of a retraining, told to a program and to an address.

They are called before the command ends and after the decision is kept; one that fails is a warning, for the decision
stands. A run that is killed in between does not call them: the history has the decision all the same. Messages name
programs and hosts only, for arguments and addresses hold secrets.
"""

import contextlib
import json
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import unquote

from urllib3.util import make_headers, parse_url

from features.io.http_connections import Deadline, connect
from schemas.secrets import without_path
from workflows.retraining.config import NotificationsConfig

_log = logging.getLogger("capt.retrain")


def notify(hooks: NotificationsConfig, outcome: Mapping[str, Any]) -> None:
    """Tell an outcome to those who want to know of it.

    Args:
        hooks: Hooks. Who does.
        outcome: mapping. With `decision`; all of it as JSON is what they get.
    """
    if outcome["decision"] not in hooks.on:
        return
    data = json.dumps(outcome).encode()
    if hooks.command:
        _warned(hooks.command[0], lambda: _run(hooks.command, data, hooks.timeout))
    if hooks.url:
        url = hooks.url
        _warned(without_path(url), lambda: _post(url, data, hooks.timeout))


def _warned(name: str, call: Callable[[], str]) -> None:
    """Calls a hook; logs what it complains of, or the type of its exception, whose text may repeat secrets."""
    try:
        complaint = call()
    except Exception as error:
        complaint = f"failed: {type(error).__name__}"
    if complaint:
        _log.warning("the hook %s %s", name, complaint)


def _run(command: tuple[str, ...], data: bytes, seconds: float) -> str:
    """Runs a program and waits for it; after `seconds` it is killed with all that it started.

    Returns:
        What is wrong, empty if nothing is.
    """
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            process.communicate(data, timeout=seconds)
        except subprocess.TimeoutExpired:
            _kill(process)
            return f"was killed after {seconds:g} seconds"
        except BaseException:
            _kill(process)
            raise
    return f"ended with status {process.returncode}" if process.returncode else ""


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _post(url: str, data: bytes, seconds: float) -> str:
    """Sends data to a URL; all of it, from the look-up of the host to the answer's status, takes at most `seconds`.

    Returns:
        What is wrong, empty if nothing is.
    """
    answers: SimpleQueue[str] = SimpleQueue()
    # A thread, because the look-up of a host's name cannot be interrupted.
    threading.Thread(target=lambda: answers.put(_answer(url, data, seconds)), daemon=True).start()
    try:
        return answers.get(timeout=seconds)
    except Empty:
        return f"did not answer within {seconds:g} seconds"


def _answer(url: str, data: bytes, seconds: float) -> str:
    """Posts, and returns what is wrong; the body of the answer is not read, and redirects are not followed."""
    address = parse_url(url)
    login = make_headers(basic_auth=unquote(address.auth)) if address.auth else {}
    headers = {**login, "Content-Type": "application/json", "Accept-Encoding": "identity", "Connection": "close"}
    with Deadline(seconds) as deadline:
        try:
            with contextlib.closing(connect(address, deadline, seconds, allow_private=True)) as connection:
                connection.request("POST", address.request_uri, body=data, headers=headers, preload_content=False)
                with contextlib.closing(connection.getresponse()) as response:
                    deadline.check()  # headers that were cut off read like an answer
                    return f"answered {response.status}" if response.status >= 300 else ""
        except Exception as error:
            reason = f"failed: {type(error).__name__}"
            return reason if deadline.left else f"did not answer within {seconds:g} seconds"
