"""Retries: a request that failed for the moment is made again, after a while that grows and is drawn at random."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

from features.io.object_stores import describe_unreachable

ATTEMPTS = 8
BASE_SECONDS = 0.25
MOST_SECONDS = 10.0

Answer = TypeVar("Answer")


class TransientError(OSError):
    """What a service, or the way to it, may well answer otherwise in a moment."""


def retry(request: Callable[[], Answer], address: str) -> Answer:
    """What a request gives, made again while it raises TransientError.

    The waits are drawn evenly between nothing and a bound that doubles, so that many who were turned away together do
    not come back together ("full jitter").

    Raises:
        CaptError: the last of `ATTEMPTS` failed like those before.
    """
    for attempt in range(ATTEMPTS):
        try:
            return request()
        except TransientError as error:
            if attempt == ATTEMPTS - 1:
                raise describe_unreachable(error, address) from error
            time.sleep(random.uniform(0, min(MOST_SECONDS, BASE_SECONDS * 2**attempt)))
    raise AssertionError("there is at least one attempt")
