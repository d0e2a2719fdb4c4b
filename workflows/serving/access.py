"""Decides which requests are answered: by `Host`, `Origin` and API key. Adds the security headers to every response.

A page on another site can make a browser send requests to this server, also under a name of its own that it lets
resolve to this machine (DNS rebinding). Such requests have a foreign `Origin`, or a foreign name as `Host`. An IP
address as `Host` is never such a name.
"""

import hmac
import ipaddress
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.errors import UsageError
from workflows.serving.responses import RequestError, error_response

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; media-src 'self' blob:; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True)
class AccessRules:
    """The host names and the API key that requests must have.

    Args:
        hosts: Host names in lower case; IP addresses and localhost are always allowed.
        api_key: The key; None if requests need none.
        public_paths: Paths that need no key.
    """

    hosts: Collection[str]
    api_key: bytes | None
    public_paths: Collection[str]

    def check(self, path: str, headers: Headers) -> None:
        """Raises RequestError if a request must not be answered."""
        host = headers.get("host", "")
        if not self._is_allowed(_host_name(host)):
            message = f"This server does not answer requests to the host {host!r}. Use its IP address, or start it with"
            raise RequestError(403, "forbidden_host", f"{message} --allowed-host.")
        for origin in headers.getlist("origin"):
            if _authority(origin) != host.lower():
                message = "Requests of pages on other sites are not answered. Use the page of this server, or a program"
                raise RequestError(403, "forbidden_origin", f"{message} that sends no Origin header.")
        if self.api_key is not None and path not in self.public_paths and not self._has_key(headers):
            message = "The API key is missing or wrong. Send the header `Authorization: Bearer KEY`."
            raise RequestError(401, "unauthorized", message, {"WWW-Authenticate": "Bearer"})

    def _is_allowed(self, name: str) -> bool:
        return name == "localhost" or name in self.hosts or _is_ip_address(name)

    def _has_key(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        key = given.strip().encode("utf-8", "surrogateescape")
        return scheme.lower() == "bearer" and self.api_key is not None and hmac.compare_digest(key, self.api_key)


class AccessControl:
    """Answers requests that the rules refuse, and passes the others to an application."""

    def __init__(self, application: ASGIApp, rules: AccessRules) -> None:
        self._application, self._rules = application, rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        try:
            self._rules.check(scope["path"], Headers(scope=scope))
        except RequestError as error:
            await error_response(error)(scope, receive, send_with_headers)
        else:
            await self._application(scope, receive, send_with_headers)


def read_api_key(path: Path) -> bytes:
    """Reads the API key of a file, its only line.

    Raises:
        UsageError: The file cannot be read, or is not one line of visible ASCII characters.
    """
    location = f"--api-key-file {path}"
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise UsageError(f"the file cannot be read: {error.strerror}", location=location) from None
    if not key or any(not 33 <= byte <= 126 for byte in key):
        hint = "Create one with `openssl rand -hex 32`."
        raise UsageError("the file is not one line of visible ASCII characters", location=location, hint=hint)
    return key


def is_loopback(host: str) -> bool:
    """Returns whether an address to listen on is reachable from this machine only."""
    return host.lower() == "localhost" or (_is_ip_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_ip_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _host_name(host: str) -> str:
    """Returns the name in a `Host` header, without its port and the brackets of IPv6."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _authority(origin: str) -> str:
    """Returns host and port of an `Origin` header; empty for `null`. The port is omitted as in `Host`."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
