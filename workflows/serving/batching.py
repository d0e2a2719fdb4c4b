"""Collects the requests of all clients to batches, which one thread computes.

submit → bounded queue → requests with equal keys, up to a size or a few milliseconds → one call → a result each
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from workflows.serving.limits import ServingLimits

Item = TypeVar("Item")
Result = TypeVar("Result")


class QueueFullError(Exception):
    """More images wait than the queue may contain."""


@dataclass(eq=False)
class _Waiting(Generic[Item, Result]):
    """A request in the queue. Requests with equal keys may be in one batch."""

    key: Hashable
    images: int
    item: Item
    future: Future[Result] = field(default_factory=Future)


class Batcher(Generic[Item, Result]):
    """Computes requests in batches, in a thread of its own.

    Args:
        name: Name of the thread.
        compute: Maps the items of a batch, which have equal keys, to their results.
        limits: Sizes of batches and queue.
    """

    def __init__(self, name: str, compute: Callable[[Sequence[Item]], Sequence[Result]], limits: ServingLimits) -> None:
        self._compute, self._limits = compute, limits
        self._queue: deque[_Waiting[Item, Result]] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name=f"batches of {name}", daemon=True)
        self._thread.start()

    @property
    def waiting_images(self) -> int:
        """Number of images in the queue, without those of the batch in progress."""
        with self._changed:
            return self._count()

    def submit(self, key: Hashable, images: int, item: Item) -> Future[Result]:
        """Adds a request with a number of images. A result that nobody needs any more is cancelled.

        Raises:
            QueueFullError: Too many images wait.
        """
        waiting = _Waiting[Item, Result](key, images, item)
        with self._changed:
            self._queue = deque(one for one in self._queue if not one.future.cancelled())
            if self._count() + images > self._limits.max_waiting_images:
                raise QueueFullError
            self._queue.append(waiting)
            self._changed.notify()
        return waiting.future

    def close(self) -> None:
        """Ends the thread after the requests in the queue."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    def _count(self) -> int:
        return sum(one.images for one in self._queue)

    def _run(self) -> None:
        while batch := self._take():
            started = [one for one in batch if one.future.set_running_or_notify_cancel()]
            if not started:
                continue
            try:
                results = self._compute([one.item for one in started])
            except Exception as error:
                for one in started:
                    one.future.set_exception(error)
            else:
                for one, result in zip(started, results, strict=True):
                    one.future.set_result(result)

    def _take(self) -> list[_Waiting[Item, Result]]:
        """Waits for requests and removes those of the next batch from the queue; empty at the end."""
        with self._changed:
            while not self._queue:
                if self._is_closed:
                    return []
                self._changed.wait()
            end = time.monotonic() + self._limits.batch_wait_seconds
            while self._count() < self._limits.max_batch_images and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
            return self._select()

    def _select(self) -> list[_Waiting[Item, Result]]:
        """Removes the first request and those that fit into its batch, in order."""
        batch: list[_Waiting[Item, Result]] = []
        kept: deque[_Waiting[Item, Result]] = deque()
        images = 0
        for one in self._queue:
            fits = not batch or images + one.images <= self._limits.max_batch_images
            if fits and one.key == self._queue[0].key:
                batch.append(one)
                images += one.images
            else:
                kept.append(one)
        self._queue = kept
        return batch
