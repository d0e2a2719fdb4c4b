"""Opens HTTP connections to checked IP addresses, and ends them at a deadline.

    URL → http or https, no user → host name resolved → public address? → connection to this very address → deadline

capt connects to the address that it checked, also after a redirect, so another answer of DNS has no effect. A kept
answer is checked like a new one.
"""

import contextlib
import ipaddress
import socket
import ssl
import threading
import time
from functools import lru_cache

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import LocationParseError
from urllib3.util import Url, parse_url

from features.io.host_addresses import AddressCache
from schemas.errors import RecordError
from schemas.secrets import strip_user

_MAX_URL_CHARACTERS = 8192
_PORTS = {"http": 80, "https": 443}
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_DOCUMENTATION = ipaddress.IPv6Network("3fff::/20")  # RFC 9637; ipaddress of Python 3.11 does not contain it
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address in the last 32 bits


def parse_http_url(url: str) -> Url:
    """Parses a URL.

    Raises:
        RecordError: Stage `download`, with reason `scheme` (neither http nor https) or `bad address` (not a URL, no
            host, a user name, or too long).
    """
    label = strip_user(url)
    if len(url) > _MAX_URL_CHARACTERS:
        raise _refuse("bad address", f"{label[:80]}…: more than {_MAX_URL_CHARACTERS} characters")
    try:
        parsed = parse_url(url)
    except LocationParseError:
        raise _refuse("bad address", f"{label}: not a URL") from None
    if parsed.scheme not in _PORTS:
        raise _refuse("scheme", f"{label}: neither http nor https")
    if parsed.auth is not None:
        raise _refuse("bad address", f"{label}: the URL contains a user name")
    if not parsed.host:
        raise _refuse("bad address", f"{label}: the URL has no host")
    return parsed


def is_public(address: str) -> bool:
    """Returns whether an IP address belongs to the public internet, by IANA's special-purpose registries.

    An address that contains another one (IPv4-mapped, 6to4, NAT64) is as public as the inner one.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv4Address):
        return ip.is_global and not ip.is_multicast and not ip.is_reserved
    inner = ip.ipv4_mapped or ip.sixtofour
    if ip in _NAT64:
        inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    if inner is not None:
        return is_public(str(inner))
    return ip.is_global and ip in _GLOBAL_UNICAST and ip not in _DOCUMENTATION


class Deadline:
    """Shuts down the current connection after some seconds; a socket's own time-out starts again with every byte."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._watched: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._shut_down)
        self._timer.daemon = True

    def __enter__(self) -> "Deadline":
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._release()

    @property
    def left(self) -> float:
        """Remaining seconds, at least 0."""
        return max(0.0, self._end - time.monotonic())

    def check(self) -> None:
        """Raises TimeoutError if the time limit is exceeded."""
        if not self.left:
            raise TimeoutError("the time limit of this URL is exceeded")

    def watch(self, connection: socket.socket) -> None:
        """Shuts down this connection at the deadline, and no longer the one before. Raises TimeoutError after it."""
        self._release()
        with self._lock:
            self._watched = connection.dup()  # TLS detaches the original descriptor from the socket object.
        self.check()

    def _release(self) -> None:
        with self._lock:
            if self._watched:
                self._watched.close()
            self._watched = None

    def _shut_down(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            if self._watched:
                self._watched.shutdown(socket.SHUT_RDWR)


def connect(
    url: Url, deadline: Deadline, seconds: float, allow_private: bool, addresses: AddressCache | None = None
) -> HTTPConnection:
    """Opens a connection to a checked address of a host, without a proxy; `seconds` is the time-out per address.

    `addresses` are those of hosts that are known; by default, none are.

    Raises:
        RecordError: Stage `download`, reason `private address`, unless `allow_private` is set.
        OSError: Name resolution, the connection or TLS failed, or the deadline is exceeded (TimeoutError).
        UnicodeError: The host name is invalid.
    """
    scheme, host = str(url.scheme), str(url.host).strip("[]")
    port = url.port or _PORTS[scheme]
    connection: _CheckedConnection
    if scheme == "https":
        connection = _CheckedTlsConnection(host, port, timeout=seconds, ssl_context=_tls_context())
    else:
        connection = _CheckedConnection(host, port, timeout=seconds)
    connection.deadline, connection.allow_private = deadline, allow_private
    connection.addresses = addresses or AddressCache()
    try:
        connection.connect()
    except BaseException:
        connection.close()
        raise
    return connection


class _CheckedConnection(HTTPConnection):
    """Connects to checked addresses only; urllib3's own class resolves the host without a check."""

    deadline: Deadline
    allow_private: bool
    addresses: AddressCache

    def _new_conn(self) -> socket.socket:
        infos = self.addresses.resolve(self._dns_host, self.port)
        allowed = [info for info in infos if self.allow_private or is_public(str(info[4][0]))]
        if not allowed:
            addresses = ", ".join(sorted({str(info[4][0]) for info in infos}))
            raise _refuse("private address", f"{self._dns_host} is {addresses}", permanent=False)
        seconds, failure = float(self.timeout or 0), OSError("no address")
        for family, kind, protocol, _, address in allowed:
            self.deadline.check()
            opened = socket.socket(family, kind, protocol)
            try:
                opened.settimeout(min(seconds, self.deadline.left) or seconds)
                opened.connect(address)
                opened.settimeout(seconds)
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.deadline.watch(opened)
            except OSError as error:
                opened.close()
                failure = error
            else:
                return opened
        self.addresses.forget(self._dns_host, self.port)
        raise failure


class _CheckedTlsConnection(_CheckedConnection, HTTPSConnection):
    """Connects to checked addresses only, over TLS."""


@lru_cache(maxsize=1)
def _tls_context() -> ssl.SSLContext:
    """Reads the system's certificates once, because reading takes milliseconds."""
    return ssl.create_default_context()


def _refuse(reason: str, detail: str, permanent: bool = True) -> RecordError:
    return RecordError("download", reason, detail, permanent=permanent)
