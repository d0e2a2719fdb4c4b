"""Runs the steps of the demo and records their durations."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

_Result = TypeVar("_Result")
_log = logging.getLogger("capt.demo")


@dataclass(frozen=True)
class Step:
    """A step of a workflow: its name, a short summary, and its duration in seconds."""

    name: str
    summary: str
    seconds: float


class Steps:
    """The steps of a demo, in order."""

    def __init__(self) -> None:
        self.done: list[Step] = []

    def run(self, name: str, work: Callable[[], _Result], summarize: Callable[[_Result], str]) -> _Result:
        """Runs a step and returns its result; `summarize` describes the result in a few words."""
        _log.info("%s …", name)
        begin = time.monotonic()
        result = work()
        self.done.append(Step(name, summarize(result), time.monotonic() - begin))
        _log.info("%s: %s (%.1f s)", name, self.done[-1].summary, self.done[-1].seconds)
        return result
