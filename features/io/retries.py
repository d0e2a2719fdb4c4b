"""Repeats requests to object stores after transient failures."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from schemas.errors import CaptError
from schemas.secrets import strip_user

ATTEMPTS = 8
BASE_SECONDS, MAX_SECONDS = 0.25, 10.0

Answer = TypeVar("Answer")


class TransientError(OSError):
    """A failed request that may succeed if it is repeated."""


def retry(request: Callable[[], Answer], uri: str) -> Answer:
    """Repeats a request while it raises TransientError; CaptError if all `ATTEMPTS` failed.

    Waits are random up to a bound that doubles ("full jitter"), so that throttled clients do not retry at once.
    """
    attempt = 1
    while True:
        try:
            return request()
        except TransientError as error:
            if attempt == ATTEMPTS:
                raise describe_unreachable(error, uri) from error
            time.sleep(random.uniform(0, min(MAX_SECONDS, BASE_SECONDS * 2 ** (attempt - 1))))
            attempt += 1


def describe_unreachable(error: Exception, uri: str) -> CaptError:
    """Returns the error of a command whose request failed, on one line and without secrets."""
    text = strip_user(str(error))  # The endpoint in the environment may contain a password.
    text = " ".join(text.split(" (Request ID")[0].split())[:300]
    return CaptError(f"cannot be reached: {text}", location=uri, hint="Check the URI, the credentials and the network.")
