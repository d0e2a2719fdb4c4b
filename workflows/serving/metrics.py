"""Counts requests, batches and images of a server, for Prometheus."""

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.responses import Response

_BATCH_SIZES = (1, 2, 4, 8, 16, 32)


class ServerMetrics:
    """The metrics of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        labels = ("path", "status")
        self._requests = Counter("capt_requests", "Requests by path and status.", labels, registry=self._registry)
        self._seconds = Histogram(
            "capt_request_seconds", "Time from the first byte to the response.", ("path",), registry=self._registry
        )
        self._in_progress = Gauge(
            "capt_requests_in_progress", "Requests without a response yet.", ("path",), registry=self._registry
        )
        self._images = Counter(
            "capt_images", "Images by model and result: ok or failed.", ("model", "result"), registry=self._registry
        )
        self._batches = Histogram(
            "capt_batch_images", "Images per batch.", ("model",), registry=self._registry, buckets=_BATCH_SIZES
        )
        self._batch_seconds = Histogram(
            "capt_batch_seconds", "Time to compute a batch.", ("model",), registry=self._registry
        )
        self._waiting = Gauge("capt_waiting_images", "Images in the queue.", ("model",), registry=self._registry)
        self._swaps = Counter("capt_champion_swaps", "Replaced champions.", ("model",), registry=self._registry)

    async def watch_request(self, path: str, response: Awaitable[Response]) -> Response:
        """Counts a request to one of the server's paths, and returns its response."""
        started = time.monotonic()
        with self._in_progress.labels(path).track_inprogress():
            answer = await response
        self._requests.labels(path, str(answer.status_code)).inc()
        self._seconds.labels(path).observe(time.monotonic() - started)
        return answer

    def count_images(self, model: str, *, images: int, failed: int) -> None:
        """Counts the images of a request, of which some failed."""
        self._images.labels(model, "ok").inc(images - failed)
        self._images.labels(model, "failed").inc(failed)

    def count_swap(self, model: str) -> None:
        """Counts a champion that has replaced another one."""
        self._swaps.labels(model).inc()

    def watch_queue(self, model: str, count_waiting: Callable[[], int]) -> None:
        """Reports the number of images in a model's queue, as `count_waiting` returns it."""
        self._waiting.labels(model).set_function(count_waiting)

    @contextmanager
    def time_batch(self, model: str, images: int) -> Iterator[None]:
        """Measures the batch that is computed in the context."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._batches.labels(model).observe(images)
            self._batch_seconds.labels(model).observe(time.monotonic() - started)

    def render(self) -> bytes:
        """Returns the metrics in Prometheus' text format."""
        return generate_latest(self._registry)
