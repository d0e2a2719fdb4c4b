"""Opens the runs that a server serves, and predicts from the images of requests, in batches of all clients."""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from features.store.model_history import find_champion
from schemas.errors import RecordError, UsageError
from schemas.options.serving import RequestOptions
from trainer.runs.run import Run, load_run
from workflows.serving.batching import Batcher, QueueFullError
from workflows.serving.limits import ServingLimits
from workflows.serving.metrics import ServerMetrics
from workflows.serving.responses import RequestError, overloaded
from workflows.serving.served_tasks import SERVED_TASKS, Prediction, RequestImage, ServedTask

_log = logging.getLogger("capt.serving")

_WARM_UP_SIDE = 64  # pixels


@dataclass(frozen=True)
class LoadedRun:
    """A run whose model and extractor are loaded and compiled."""

    run: Run
    task: ServedTask
    has_attention: bool

    @classmethod
    def load(cls, location: str | Path, limits: ServingLimits) -> "LoadedRun":
        """Loads a run and predicts from two blank images, so that the first request is as fast as the others.

        Raises:
            UsageError: The run cannot be served.
            StoreError: The run is not usable.
        """
        run: Run = load_run(location)
        run.max_image_pixels = limits.max_pixels
        task = next((one for one in SERVED_TASKS if one.name == run.metadata.task), None)
        if task is None:
            raise UsageError(f"runs of the task {run.metadata.task} cannot be served", location=str(location))
        run.require_extractor()
        options = task.options()
        # A graph for batches of any size is traced with the second size.
        for images in ([_blank_image()], [_blank_image()] * 2):
            predictions = task.predict(run, options, images, range(len(images)))
            for prediction in predictions:
                if isinstance(prediction, RecordError):
                    raise prediction
        return cls(run, task, task.has_attention(predictions[0]))


@dataclass(frozen=True)
class _Request:
    """The images of a request with its options."""

    options: RequestOptions
    images: Sequence[RequestImage]


@dataclass(frozen=True)
class Answer:
    """The rows of a request, and the name of the run that computed them."""

    run: str
    rows: list[dict[str, Any]]


class ServedModel:
    """A model of a server. Its run can be replaced between two batches.

    Args:
        location: The run directory, or STORE/models/NAME.
        limits: Sizes and time-outs.
        metrics: Counts batches and images.

    Raises:
        UsageError: The run cannot be served.
        StoreError: The run is not usable.
    """

    def __init__(self, location: str, limits: ServingLimits, metrics: ServerMetrics) -> None:
        self.location, self._limits, self._metrics = location, limits, metrics
        champion = find_champion(location)
        self.is_registered = champion is not None
        self._loaded = LoadedRun.load(location, limits)
        self.name = location.rstrip("/").rpartition("/")[2] if self.is_registered else self._loaded.run.path.name
        self._batcher = Batcher[_Request, Answer](self.name, self._compute, limits)
        metrics.watch_queue(self.name, lambda: self._batcher.waiting_images)

    def follow_champion(self) -> None:
        """Replaces the run by the model's champion if that is another one, when it is loaded; errors as the class.

        Requests in the queue are computed by the run that is current when their batch begins.
        """
        path, earlier = find_champion(self.location), self._loaded
        if path is None or path == earlier.run.path:
            return
        loaded = LoadedRun.load(path, self._limits)
        if loaded.task is not earlier.task:
            raise UsageError(f"the new champion has the task {loaded.task.name}", location=self.location)
        self._loaded = loaded
        self._metrics.count_swap(self.name)
        _log.info("Model %s: the champion %s has replaced %s.", self.name, path.name, earlier.run.path.name)

    @property
    def task(self) -> ServedTask:
        return self._loaded.task

    def describe(self) -> dict[str, Any]:
        """Describes the model for `GET /v1/models`."""
        loaded = self._loaded
        run = loaded.run
        return {
            "name": self.name,
            "task": run.metadata.task,
            "architecture": run.metadata.model,
            "run": run.path.name,
            "epoch": run.best_epoch if run.epoch is None else run.epoch,
            "attention": loaded.has_attention,
            "registered": self.is_registered,
        }

    def check(self, options: RequestOptions) -> None:
        """Raises UsageError if the options of a request do not fit the run."""
        self._loaded.task.check(self._loaded.run, options)

    async def predict(self, options: RequestOptions, images: Sequence[RequestImage]) -> Answer:
        """Predicts from the images of a request.

        Raises:
            RequestError: Too many images wait, or the time limit is exceeded.
            UsageError: The options do not fit the run.
        """
        try:
            future = self._batcher.submit(self.task.batch_key(options), len(images), _Request(options, images))
        except QueueFullError:
            raise overloaded(f"Too many images wait for the model {self.name}.") from None
        seconds = self._limits.prediction_seconds
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), seconds)
        except TimeoutError:
            message = f"The model {self.name} has not answered within {seconds:g} seconds. Try again later."
            raise RequestError(504, "timeout", message) from None

    def close(self) -> None:
        """Ends the model after the requests in its queue."""
        self._batcher.close()

    def _compute(self, requests: Sequence[_Request]) -> list[Answer]:
        loaded = self._loaded
        images = [image for request in requests for image in request.images]
        numbers = [number for request in requests for number in range(len(request.images))]
        with self._metrics.time_batch(self.name, len(images)):
            predictions = iter(loaded.task.predict(loaded.run, requests[0].options, images, numbers))
            return [Answer(loaded.run.path.name, self._make_rows(loaded, one, predictions)) for one in requests]

    def _make_rows(
        self, loaded: LoadedRun, request: _Request, predictions: Iterator[Prediction]
    ) -> list[dict[str, Any]]:
        rows = [loaded.task.to_row(loaded.run, request.options, image, next(predictions)) for image in request.images]
        self._metrics.count_images(self.name, failed=sum("error" in row for row in rows), images=len(rows))
        return rows


def open_models(locations: Sequence[str], limits: ServingLimits, metrics: ServerMetrics) -> list[ServedModel]:
    """Opens the models of a server; UsageError if two have one name, and errors as `ServedModel`."""
    models: dict[str, ServedModel] = {}
    try:
        for location in locations:
            model = ServedModel(location, limits, metrics)
            earlier = models.setdefault(model.name, model)
            if earlier is not model:
                model.close()
                message = f"the name {model.name} is also that of {earlier.location}"
                raise UsageError(message, location=location, hint="Rename the run directory.")
    except BaseException:
        for model in models.values():
            model.close()
        raise
    return list(models.values())


def _blank_image() -> RequestImage:
    data = BytesIO()
    Image.new("RGB", (_WARM_UP_SIDE, _WARM_UP_SIDE), "gray").save(data, "PNG")
    return RequestImage("blank.png", data.getvalue())
