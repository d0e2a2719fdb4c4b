"""Requests to web servers that the user names: by the environment's proxies, redirects followed, refusals in one line.

This is for published files and company mirrors, whose addresses a person chose. Addresses that come from a dataset are
for `features.references.downloads`, which refuses private ones.
"""

import contextlib
import http.client
from collections.abc import Iterator, Mapping
from urllib.parse import unquote, urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from urllib3 import BaseHTTPResponse, PoolManager, ProxyManager, Timeout, make_headers
from urllib3.exceptions import HTTPError, ProtocolError, ProxyError
from urllib3.exceptions import TimeoutError as TooSlowError
from urllib3.util import parse_url

from schemas.errors import CaptError
from schemas.secrets import strip_query, strip_user

_TIMEOUT = Timeout(connect=15, read=60)
_MAX_REDIRECTS = 10
_BUSY = (408, 425, 429, 500, 502, 503, 504)
_OWN_HEADERS = {"User-Agent": "capt", "Accept-Encoding": "identity"}
_ASIDE = "a file fetched in another way can be put into the directory, or --mirror-url names another address"


class BrokenTransferError(Exception):
    """A connection that broke, or a server that is busy: another try may do."""


@contextlib.contextmanager
def request(address: str, headers: Mapping[str, str]) -> Iterator[BaseHTTPResponse]:
    """The answer to a GET, its body not yet read: status 200, 206 or 416.

    Args:
        address: str. http or https.
        headers: mapping of str to str.

    Raises:
        BrokenTransferError: another try may do. Also for what the block does with the answer.
        CaptError: the server refuses, or cannot be asked at all.
    """
    with contextlib.ExitStack() as opened:
        try:
            response = _followed(address, headers, opened)
            if response.status not in (200, 206, 416):
                said = f"{response.status} {response.reason or http.client.responses.get(response.status, '')}".strip()
                raise CaptError(f"the server says {said}", location=address, hint=_ASIDE)
            yield response
        except (ProtocolError, ProxyError, TooSlowError) as error:
            raise BrokenTransferError(strip_user(str(error.args[0] if error.args else type(error).__name__))) from error
        except HTTPError as error:
            message = f"the server cannot be asked: {strip_user(str(error))}"
            raise CaptError(message, location=address, hint=_ASIDE) from error


def describe_unreachable(address: str, reason: object) -> CaptError:
    """The error of an address that could not be had however often it was tried."""
    return CaptError(
        f"no good connection: {reason}", location=address, hint=f"check the network and its proxy; {_ASIDE}"
    )


def _followed(address: str, headers: Mapping[str, str], opened: contextlib.ExitStack) -> BaseHTTPResponse:
    here = address
    for _ in range(_MAX_REDIRECTS + 1):
        manager = opened.enter_context(_manager(here))
        response = manager.request(
            "GET",
            here,
            headers={**_OWN_HEADERS, **headers},
            timeout=_TIMEOUT,
            retries=False,
            redirect=False,
            preload_content=False,
        )
        opened.callback(response.close)
        if response.status in _BUSY:
            raise BrokenTransferError(f"the server says {response.status}")
        onward = response.get_redirect_location()
        if not onward:
            return response
        here = _redirected(here, onward)
    raise CaptError(f"more than {_MAX_REDIRECTS} redirects", location=address, hint=_ASIDE)


def _redirected(here: str, onward: str) -> str:
    """The address that a server redirects to; CaptError if it is not an address, or a less safe one."""
    place = strip_query(here)
    try:
        there = urljoin(here, onward)
        schemes = (urlsplit(here).scheme, urlsplit(there).scheme)
    except ValueError as error:
        raise CaptError(f"redirected to an address that is not a URL: {error}", location=place, hint=_ASIDE) from error
    if schemes not in (("http", "http"), ("http", "https"), ("https", "https")):
        raise CaptError(f"redirected to {strip_query(there)}, which is no safe address", location=place, hint=_ASIDE)
    return there


def _manager(address: str) -> PoolManager:
    """Connections to an address: through the proxy that the environment names for it, if any."""
    parts = urlsplit(address)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return PoolManager()
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    login = parse_url(proxy).auth
    return ProxyManager(proxy, proxy_headers=make_headers(proxy_basic_auth=unquote(login)) if login else None)
