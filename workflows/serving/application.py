"""Answers the requests of a server: the routes and their errors.

    GET  /                the page, with its files
    GET  /v1/models       the models
    POST /v1/caption      captions of images
    POST /v1/recognize    the text in CAPTCHA images
    GET  /healthz, /metrics, /openapi.json

Every error is a JSON object with a code and a sentence.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from schemas.errors import UsageError
from workflows.serving.access import AccessControl, AccessRules
from workflows.serving.limits import ServingLimits
from workflows.serving.metrics import ServerMetrics
from workflows.serving.openapi import describe_api
from workflows.serving.page_files import read_page
from workflows.serving.request_images import ImageReader
from workflows.serving.responses import RequestError, error_response, invalid_option, json_response
from workflows.serving.served_model import ServedModel
from workflows.serving.served_tasks import SERVED_TASKS, ServedTask

Result = TypeVar("Result")
Handler = Callable[[Request], Awaitable[Response]]

_log = logging.getLogger("capt.serving")


class Application:
    """The application of one server.

    Args:
        models: The models, in the order of the command.
        limits: Sizes and time-outs.
        metrics: Counts requests.
        reader: Reads the images of requests.
    """

    def __init__(
        self, models: Sequence[ServedModel], limits: ServingLimits, metrics: ServerMetrics, reader: ImageReader
    ) -> None:
        self._models, self._limits, self._metrics, self._reader = models, limits, metrics, reader
        self.is_stopping = False

    def build(self, hosts: Sequence[str], api_key: bytes | None) -> ASGIApp:
        """Returns the ASGI application that answers requests to some hosts, with an API key."""
        page = read_page()
        routes = [
            *(self._route(path, _constant(response)) for path, response in page.items()),
            self._route("/healthz", self._show_health),
            self._route("/metrics", self._show_metrics),
            self._route("/openapi.json", _constant(json_response(describe_api(needs_key=api_key is not None)))),
            self._route("/v1/models", self._list_models),
            *(self._route(task.path, self._predictor(task), "POST") for task in SERVED_TASKS),
        ]
        application = Starlette(routes=routes, exception_handlers={HTTPException: _answer_http_error})
        application.router.redirect_slashes = False
        public = {*page, "/healthz"}
        return AccessControl(application, AccessRules([host.lower() for host in hosts], api_key, public))

    def _route(self, path: str, handler: Handler, method: str = "GET") -> Route:
        async def answer(request: Request) -> Response:
            return await self._metrics.watch_request(path, _answer(handler, request))

        return Route(path, answer, methods=[method])

    async def _show_health(self, request: Request) -> Response:
        if self.is_stopping:
            raise RequestError(503, "overloaded", "The server is shutting down. Use another one.", {"Retry-After": "1"})
        return json_response({"status": "ok"})

    async def _show_metrics(self, request: Request) -> Response:
        return Response(self._metrics.render(), media_type="text/plain; version=1.0.0")

    async def _list_models(self, request: Request) -> Response:
        limits = self._limits
        return json_response(
            {
                "models": [model.describe() for model in self._models],
                "max_images": limits.max_images,
                "max_body_bytes": limits.max_body_bytes,
                "max_pixels": limits.max_pixels,
            }
        )

    def _predictor(self, task: ServedTask) -> Handler:
        async def predict(request: Request) -> Response:
            options: Any = task.options.parse_query(request.query_params.multi_items())
            model = self._find_model(task, options.model)
            model.check(options)
            async with self._reader.read(request) as images:
                answer = await _while_connected(request, model.predict(options, images))
            return json_response({"model": model.name, "run": answer.run, "results": answer.rows})

        return predict

    def _find_model(self, task: ServedTask, name: str | None) -> ServedModel:
        fitting = [model for model in self._models if model.task is task]
        found = [model for model in fitting if name is None or model.name == name]
        if not found:
            names = ", ".join(model.name for model in fitting)
            wanted = "No model" if name is None else f"No model {name!r}"
            hint = f"Use one of {names}." if names else "Start capt serve with such a run."
            raise RequestError(404, "unknown_model", f"{wanted} of the task {task.name} is served. {hint}")
        return found[0]


async def _while_connected(request: Request, answer: Coroutine[Any, Any, Result]) -> Result:
    """Awaits an answer, and cancels it if the client disconnects first, which raises ClientDisconnect."""
    answering = asyncio.ensure_future(answer)
    leaving = asyncio.ensure_future(_wait_for_disconnect(request))
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise ClientDisconnect
        return answering.result()
    finally:
        answering.cancel()
        leaving.cancel()


async def _wait_for_disconnect(request: Request) -> None:
    """Waits until the client disconnects. Its body has been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _answer(handler: Handler, request: Request) -> Response:
    """Returns the response of a handler, or that to its error."""
    try:
        return await handler(request)
    except RequestError as error:
        return error_response(error)
    except UsageError as error:
        return error_response(invalid_option(error))
    except ClientDisconnect:
        return Response(status_code=400)  # Nobody receives it.
    except Exception:
        _log.exception("Unexpected error in %s.", request.url.path)
        message = "The server failed unexpectedly. Its log has the reason."
        return error_response(RequestError(500, "internal", message))


async def _answer_http_error(request: Request, error: Exception) -> Response:
    """Answers a request to an unknown path, or with another method."""
    if isinstance(error, HTTPException) and error.status_code == 405:
        message = f"The path {request.url.path} does not accept {request.method}. Use another method."
        return error_response(RequestError(405, "method_not_allowed", message, dict(error.headers or {})))
    message = f"The path {request.url.path} does not exist. GET /openapi.json lists the paths."
    return error_response(RequestError(404, "not_found", message))


def _constant(response: Response) -> Handler:
    async def answer(request: Request) -> Response:
        return response

    return answer
