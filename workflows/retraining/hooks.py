"""Hooks: the outcome of a retraining, told to a program and to an address.

They are called before the command ends and after the decision is kept; one that fails is a warning, for the decision
stands. A run that is killed in between does not call them: the history has the decision all the same.
"""

import json
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Mapping
from typing import Any

import urllib3

from schemas.secrets import without_path
from workflows.retraining.config import Hooks

_log = logging.getLogger("capt.retrain")


def tell(hooks: Hooks, outcome: Mapping[str, Any]) -> None:
    """Tell an outcome to those who want to know of it.

    Args:
        hooks: Hooks. Who does.
        outcome: mapping. With `decision`; all of it as JSON is what they get.
    """
    if outcome["decision"] not in hooks.on:
        return
    data = json.dumps(outcome).encode()
    if hooks.command:
        _run(hooks, data)
    if hooks.url:
        _post(hooks, data)


def _run(hooks: Hooks, data: bytes) -> None:
    program = hooks.command[0]
    try:
        # A session of its own, so that what the program starts ends with it.
        with subprocess.Popen(
            hooks.command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
        ) as running:
            try:
                running.communicate(data, timeout=hooks.timeout)
            except subprocess.TimeoutExpired:
                os.killpg(running.pid, signal.SIGKILL)
                raise
        if running.returncode:
            _log.warning("the hook %s ended with status %d", program, running.returncode)
    except (OSError, subprocess.TimeoutExpired) as error:
        _log.warning("the hook %s could not be run: %s", program, error)


def _post(hooks: Hooks, data: bytes) -> None:
    """Posts in a thread: a server that trickles its answer, or a name that is not resolved, outlasts every timeout."""
    assert hooks.url
    posting = threading.Thread(target=_send, args=(hooks.url, data, hooks.timeout), daemon=True)
    posting.start()
    posting.join(hooks.timeout)
    if posting.is_alive():
        _log.warning("the hook %s did not answer within %g seconds", without_path(hooks.url), hooks.timeout)


def _send(url: str, data: bytes, timeout: float) -> None:
    host = without_path(url)
    headers = {"content-type": "application/json"}
    with urllib3.PoolManager() as pool:
        try:
            # The answer's body is not read: only its status counts.
            answer = pool.request(
                "POST",
                url,
                body=data,
                headers=headers,
                timeout=timeout,
                retries=False,
                redirect=False,
                preload_content=False,
            )
        except Exception as error:  # a stranger's answer; the error's text repeats the URL
            _log.warning("the hook %s could not be reached: %s", host, type(error).__name__)
            return
        if answer.status >= 300:
            _log.warning("the hook %s answered %d", host, answer.status)
        answer.close()
