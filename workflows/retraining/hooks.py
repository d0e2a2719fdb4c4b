"""Hooks: the outcome of a retraining, told to a program and to an address.

They are called before the command ends and after the decision is kept; one that fails is a warning, for the decision
stands. A run that is killed in between does not call them: the history has the decision all the same.
"""

import json
import logging
import subprocess
from collections.abc import Mapping
from typing import Any

import urllib3

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
    try:
        done = subprocess.run(hooks.command, input=data, timeout=hooks.timeout, check=False, stdout=subprocess.DEVNULL)
        if done.returncode:
            _log.warning("the hook %s ended with status %d", hooks.command[0], done.returncode)
    except (OSError, subprocess.TimeoutExpired) as error:
        _log.warning("the hook %s could not be run: %s", hooks.command[0], error)


def _post(hooks: Hooks, data: bytes) -> None:
    assert hooks.url
    try:
        headers = {"content-type": "application/json"}
        answer = urllib3.request(
            "POST", hooks.url, body=data, headers=headers, timeout=hooks.timeout, retries=False, redirect=False
        )
        if answer.status >= 300:
            _log.warning("the hook %s answered %d", hooks.url, answer.status)
    except urllib3.exceptions.HTTPError as error:
        _log.warning("the hook %s could not be reached: %s", hooks.url, error)
