"""Requests files from web servers that the user or a publisher chose, through the proxies of the environment.

URLs from datasets are requested by `features.inputs.image_urls`, which refuses private addresses.
"""

import contextlib
import http.client
from collections.abc import Iterator, Mapping
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from urllib3 import BaseHTTPResponse, PoolManager, ProxyManager, Timeout, make_headers
from urllib3.exceptions import HTTPError, ProtocolError, ProxyError
from urllib3.exceptions import TimeoutError as SlowServerError
from urllib3.util import parse_url

from features.io.retries import TransientError
from schemas.errors import CaptError
from schemas.secrets import strip_query, strip_user

HINT = "Put the file into the directory by other means, or name another URL with --mirror-url."

_TIMEOUT = Timeout(connect=15, read=60)
_MAX_REDIRECTS = 10
_BUSY = (408, 425, 429, 500, 502, 503, 504)
_HEADERS = {"User-Agent": "capt", "Accept-Encoding": "identity"}


@contextlib.contextmanager
def request(url: str, headers: Mapping[str, str]) -> Iterator[BaseHTTPResponse]:
    """Sends a GET request, follows redirects, and yields the response (status 200, 206 or 416) with its body unread.

    Raises:
        TransientError: A retry may succeed. Also raised for errors of the block that reads the body.
        CaptError: The server refuses, or cannot be requested at all.
    """
    with contextlib.ExitStack() as stack:
        try:
            response = _follow(url, headers, stack)
            if response.status not in (200, 206, 416):
                reason = response.reason or http.client.responses.get(response.status, "")
                raise CaptError(f"the server answers {response.status} {reason}".strip(), location=url, hint=HINT)
            yield response
        except (ProtocolError, ProxyError, SlowServerError) as error:
            raise TransientError(strip_user(str(error.args[0] if error.args else type(error).__name__))) from error
        except HTTPError as error:
            raise CaptError(f"the request failed: {strip_user(str(error))}", location=url, hint=HINT) from error


def _follow(url: str, headers: Mapping[str, str], stack: contextlib.ExitStack) -> BaseHTTPResponse:
    target, sent = url, {**_HEADERS, **headers}
    for _ in range(_MAX_REDIRECTS + 1):
        pool = stack.enter_context(_open_connections(target))
        response = pool.request(
            "GET", target, headers=sent, timeout=_TIMEOUT, retries=False, redirect=False, preload_content=False
        )
        stack.callback(response.close)
        if response.status in _BUSY:
            raise TransientError(f"the server answers {response.status}")
        location = response.get_redirect_location()
        if not location:
            return response
        target = _resolve_redirect(target, location)
    raise CaptError(f"more than {_MAX_REDIRECTS} redirects", location=url, hint=HINT)


def _resolve_redirect(url: str, location: str) -> str:
    """Returns the URL of a redirect. Refuses a target that is not a URL, or less safe than the URL before."""
    try:
        target = urljoin(url, location)
        schemes = (urlsplit(url).scheme, urlsplit(target).scheme)
    except ValueError as error:
        message = f"the server redirects to an invalid URL: {error}"
        raise CaptError(message, location=strip_query(url), hint=HINT) from error
    if schemes not in (("http", "http"), ("http", "https"), ("https", "https")):
        message = f"the server redirects to {strip_query(target)}, which is not a safe URL"
        raise CaptError(message, location=strip_query(url), hint=HINT)
    return target


def _open_connections(url: str) -> PoolManager:
    """Opens connections to a URL's host, through the proxy that the environment names for it, if any."""
    parts = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return PoolManager()
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    login = parse_url(proxy).auth
    return ProxyManager(proxy, proxy_headers=make_headers(proxy_basic_auth=unquote(login)) if login else None)
