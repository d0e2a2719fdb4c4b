"""Describes the JSON API of a server as an OpenAPI document. Parameters are those of the options."""

from collections.abc import Iterable, Mapping
from typing import Any

from schemas.options.serving import RequestOptions
from workflows.serving.request_images import FIELD
from workflows.serving.served_tasks import SERVED_TASKS, ServedTask

_TEXT = {"type": "string"}
_NUMBER = {"type": "number"}
_ERROR = {
    "type": "object",
    "properties": {"error": {"type": "object", "properties": {"code": _TEXT, "message": _TEXT}}},
}
_ERRORS = {
    "400": "An option is invalid, or there is no image.",
    "401": "The API key is missing or wrong.",
    "403": "The host or the origin is not allowed.",
    "404": "The model does not exist.",
    "408": "The body did not arrive in time.",
    "413": "The body or the number of images is too large.",
    "415": "The type of the body is not supported.",
    "503": "Too many images wait. Retry-After says when to try again.",
    "504": "The model did not answer in time.",
}


def describe_api(*, needs_key: bool) -> dict[str, Any]:
    """Returns the OpenAPI document; `needs_key` is whether requests need an API key."""
    paths = {task.path: {"post": _describe_task(task)} for task in SERVED_TASKS}
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "capt serve", "version": "1"},
        "paths": {
            **paths,
            "/v1/models": {"get": _describe_get("List the models and the limits of requests.", "application/json")},
            "/healthz": {"get": _describe_get("Whether the server accepts requests.", "application/json")},
            "/metrics": {"get": _describe_get("Metrics in the text format of Prometheus.", "text/plain")},
            "/openapi.json": {"get": _describe_get("This document.", "application/json")},
        },
    }
    if needs_key:
        document["components"] = {"securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}}
        document["security"] = [{"key": []}]
    return document


def _describe_task(task: ServedTask) -> dict[str, Any]:
    form = {"type": "object", "properties": {FIELD: {"type": "array", "items": {"type": "string", "format": "binary"}}}}
    url = {"type": "object", "properties": {"url": {"type": "string", "format": "uri"}}, "required": ["url"]}
    row = {"type": "object", "properties": {"image": _TEXT, "text": _TEXT, "score": _NUMBER, "error": _TEXT}}
    answer = {"model": _TEXT, "run": _TEXT, "results": {"type": "array", "items": row}}
    return {
        "summary": (task.__doc__ or "").partition("\n")[0],
        "parameters": list(_describe_parameters(task.options)),
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": form},
                "image/*": {"schema": {}},
                "application/octet-stream": {"schema": {}},
                "application/json": {"schema": url},
            },
        },
        "responses": {
            "200": _describe_response("One result per image.", {"type": "object", "properties": answer}),
            **{status: _describe_response(text, _ERROR) for status, text in _ERRORS.items()},
        },
    }


def _describe_parameters(options: type[RequestOptions]) -> Iterable[dict[str, Any]]:
    options.model_rebuild()
    schemas = options.model_json_schema()["properties"]
    for name, _, described in options.declared():
        yield {"name": name, "in": "query", "description": described.help, "schema": _remove_title(schemas[name])}


def _remove_title(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key != "title"}


def _describe_get(summary: str, kind: str) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": {"description": summary, "content": {kind: {"schema": {}}}}}}


def _describe_response(description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}
