"""Defines the result of a command that goes on after its result is known, such as `capt serve`."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, Self


class Service(dict[str, Any], ABC):
    """What `--json` prints of a running service. Leaving its context stops it."""

    @abstractmethod
    def wait(self) -> None:
        """Waits until the service is stopped: by SIGINT, SIGTERM or `stop`. Call it in the main thread."""

    @abstractmethod
    def stop(self) -> None:
        """Finishes the requests in progress, and ends the service."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
