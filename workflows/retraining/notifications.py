"""Sends the outcome of a retraining to a program and a webhook.

capt notifies after the decision is recorded and before the command ends. A notification that fails is a warning. If
capt is killed in between, no notification is sent; `capt models show` shows the decision. Log messages contain only the
program's name and the URL's host: arguments and URLs often contain secrets.
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

from features.io.public_http import Deadline, connect
from schemas.secrets import strip_path
from workflows.retraining.config import NotificationsConfig

_log = logging.getLogger("capt.retrain")


def notify(config: NotificationsConfig, outcome: Mapping[str, Any]) -> None:
    """Sends an outcome as JSON, if its `decision` is one of `config.on`."""
    if outcome["decision"] not in config.on:
        return
    data = json.dumps(outcome).encode()
    if config.command:
        _warn_on_failure(config.command[0], lambda: _run(config.command, data, config.timeout))
    if config.url:
        url = config.url
        _warn_on_failure(strip_path(url), lambda: _post(url, data, config.timeout))


def _warn_on_failure(recipient: str, send: Callable[[], str]) -> None:
    """Logs the problem that `send` returns, or the type of its exception, whose text may contain secrets."""
    try:
        problem = send()
    except Exception as error:
        problem = f"failed: {type(error).__name__}"
    if problem:
        _log.warning("The notification of %s %s.", recipient, problem)


def _run(command: tuple[str, ...], data: bytes, timeout: float) -> str:
    """Runs a program, and kills it with its child processes after `timeout` seconds. Returns the problem or ""."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            process.communicate(data, timeout=timeout)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            return f"was killed after {timeout:g} seconds"
    return f"ended with exit code {process.returncode}" if process.returncode else ""


def _post(url: str, data: bytes, timeout: float) -> str:
    """Posts data within `timeout` seconds, DNS lookup included. Returns the problem or ""."""
    problems: SimpleQueue[str] = SimpleQueue()
    # A DNS lookup cannot be interrupted, so it needs its own thread.
    threading.Thread(target=lambda: problems.put(_request(url, data, timeout)), daemon=True).start()
    try:
        return problems.get(timeout=timeout)
    except Empty:
        return f"did not answer within {timeout:g} seconds"


def _request(url: str, data: bytes, timeout: float) -> str:
    """Posts data. The response body is not read, and redirects are not followed."""
    address = parse_url(url)
    login = make_headers(basic_auth=unquote(address.auth)) if address.auth else {}
    headers = {**login, "Content-Type": "application/json", "Accept-Encoding": "identity", "Connection": "close"}
    with Deadline(timeout) as deadline:
        try:
            with contextlib.closing(connect(address, deadline, timeout, allow_private=True)) as connection:
                connection.request("POST", address.request_uri, body=data, headers=headers, preload_content=False)
                with contextlib.closing(connection.getresponse()) as response:
                    deadline.check()  # truncated headers look like a complete response
                    return f"answered {response.status}" if response.status >= 300 else ""
        except Exception as error:
            problem = f"failed: {type(error).__name__}"
            return problem if deadline.left else f"did not answer within {timeout:g} seconds"
