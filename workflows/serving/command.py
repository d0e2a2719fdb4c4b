"""Runs `capt serve`: opens models, and serves them until it is stopped."""

from collections.abc import Mapping, Sequence
from typing import Any

from features.io.locations import local_path
from schemas.errors import UsageError
from schemas.options.serving import Serve
from schemas.service import Service
from workflows.serving.access import is_loopback, read_api_key
from workflows.serving.application import Application
from workflows.serving.champion_watch import ChampionWatch
from workflows.serving.http_server import HttpServer, listen
from workflows.serving.limits import ServingLimits
from workflows.serving.metrics import ServerMetrics
from workflows.serving.request_images import ImageReader
from workflows.serving.served_model import ServedModel, open_models


class RunningServer(Service):
    """A running server; `url` is that of its page, `models` are the names of its models."""

    def __init__(
        self,
        url: str,
        models: Sequence[ServedModel],
        application: Application,
        server: HttpServer,
        champions: ChampionWatch,
    ) -> None:
        super().__init__(url=url, models=[model.name for model in models])
        self._models, self._application, self._server, self._champions = models, application, server, champions

    def wait(self) -> None:
        self._server.wait_for_signal(self._begin_stop)
        self.stop()

    def stop(self) -> None:
        self._begin_stop()
        self._server.join()
        self._champions.stop()
        for model in self._models:
            model.close()

    def _begin_stop(self) -> None:
        self._application.is_stopping = True
        self._server.request_stop()


def serve(options: Serve) -> RunningServer:
    """Starts a server.

    Returns:
        `url` of the page, and the names of the `models`. From Python, `stop()` stops the server, or leaving its
        context: `with capt.serve("R", port=0) as server: …`.

    Raises:
        UsageError: The host needs an API key, a run cannot be served, or two have one name.
        StoreError: A run is not usable.
        CaptError: The address cannot be used.
    """
    return start(options, ServingLimits())


def start(options: Serve, limits: ServingLimits) -> RunningServer:
    """Starts a server with other limits than those of the command; otherwise as `serve`."""
    key = read_api_key(local_path(options.api_key_file, "--api-key-file")) if options.api_key_file else None
    if key is None and not is_loopback(options.host):
        hint = "Add --api-key-file, or listen on 127.0.0.1."
        raise UsageError("other machines can reach this address, so a key is required", location="--host", hint=hint)
    listener = listen(options.host, options.port)
    try:
        metrics = ServerMetrics()
        models = open_models(options.runs, limits, metrics)
    except BaseException:
        listener.close()
        raise
    reader = ImageReader(limits, allow_private=options.allow_private_addresses)
    application = Application(models, limits, metrics, reader)
    server = HttpServer(application.build([options.host, *options.allowed_host], key), listener, limits)
    host = f"[{options.host}]" if ":" in options.host else options.host
    url = f"http://{host}:{listener.getsockname()[1]}/"
    return RunningServer(url, models, application, server, ChampionWatch(models, limits.champion_seconds))


def print_served(result: Mapping[str, Any]) -> None:
    """Prints the URL of a server."""
    print(f"Serving {', '.join(result['models'])} at {result['url']} Ctrl-C stops it.")
