"""Defines the errors of requests, and writes JSON responses."""

import json
import re
from typing import Any

from starlette.responses import Response

from schemas.errors import CaptError

_FLAG = re.compile(r"--([a-z][a-z_-]*[a-z])")


class RequestError(Exception):
    """A request without a result.

    Args:
        status: Status of the response.
        code: The kind of error, in snake case; clients may rely on it.
        message: One sentence that says what to do.
        headers: Further headers of the response.
    """

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, headers or {}


def invalid_option(error: CaptError) -> RequestError:
    """Returns the error of a request for that of an option, which has the name of a query parameter."""
    message = _FLAG.sub(lambda flag: flag[1].replace("-", "_"), str(error))
    return RequestError(400, "invalid_option", message)


def overloaded(message: str) -> RequestError:
    return RequestError(503, "overloaded", f"{message} Try again in a second.", {"Retry-After": "1"})


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Returns a response with JSON in ASCII, as `--json` prints it."""
    return Response(json.dumps(content), status, headers, media_type="application/json")


def error_response(error: RequestError) -> Response:
    content = {"error": {"code": error.code, "message": error.message}}
    return json_response(content, error.status, error.headers)
