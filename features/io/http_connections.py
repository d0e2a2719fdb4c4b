"""Addresses on the web: which are asked at all, and connections that go to a checked address and end on time.

    URL → scheme, no user name → host resolved here → address public? → connected to that very address → watched

A host is resolved once for a connection, and what was checked is what is connected to, so a name whose answer changes
between two look-ups gains nothing. Every redirect makes a new connection, so every one is checked.
"""

import contextlib
import ipaddress
import socket
import ssl
import threading
import time
from functools import lru_cache
from types import TracebackType

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import LocationParseError
from urllib3.util import Url, parse_url

from schemas.errors import RecordError
from schemas.secrets import strip_user

MAX_URL = 8192

_PORTS = {"http": 80, "https": 443}
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_DOCUMENTATION = ipaddress.IPv6Network("3fff::/20")  # RFC 9637; ipaddress of Python 3.11 does not know it
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address in the last 32 bits


def parse_http_url(url: str) -> Url:
    """A URL in its parts, in the form that requests are made of.

    Raises:
        RecordError: stage `download`, reason `scheme` where it is neither http nor https, or `bad address` where it has
            no host, names a user, or is no URL.
    """
    shown = strip_user(url)
    if len(url) > MAX_URL:
        raise _refused("bad address", f"{shown[:80]}…: more than {MAX_URL} characters")
    try:
        parsed = parse_url(url)
    except LocationParseError:
        raise _refused("bad address", f"{shown}: not a URL") from None
    if parsed.scheme not in _PORTS:
        raise _refused("scheme", f"{shown}: neither http nor https")
    if parsed.auth is not None:
        raise _refused("bad address", f"{shown}: it names a user")
    if not parsed.host:
        raise _refused("bad address", f"{shown}: it names no host")
    return parsed


def is_public(address: str) -> bool:
    """Whether an IP address is one of the public internet, by the registries of IANA for special purposes.

    Of an address that holds another (IPv4-mapped, 6to4, NAT64), the other one counts.
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
    """A moment at which the connection in use is broken off, however slowly it still sends.

    Time-outs of a socket start anew with every byte; this one does not.

    Args:
        seconds: float. From now.
    """

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._watched: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._break_off)
        self._timer.daemon = True

    def __enter__(self) -> "Deadline":
        self._timer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._timer.cancel()
        self._forget()

    @property
    def left(self) -> float:
        """Seconds left, at least 0."""
        return max(0.0, self._end - time.monotonic())

    def check(self) -> None:
        """TimeoutError where the moment has passed."""
        if not self.left:
            raise TimeoutError("the time for this address is over")

    def watch(self, connection: socket.socket) -> None:
        """Break this connection off at the deadline, and no other."""
        self._forget()
        with self._lock:
            # A second descriptor: TLS takes the first one from the socket object.
            self._watched = connection.dup()
        self.check()

    def _forget(self) -> None:
        with self._lock:
            if self._watched:
                self._watched.close()
            self._watched = None

    def _break_off(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            if self._watched:
                self._watched.shutdown(socket.SHUT_RDWR)


def connect(address: Url, deadline: Deadline, seconds: float, allow_private: bool) -> HTTPConnection:
    """A connection to a host at an address that was checked; no proxy that the environment names is used.

    Args:
        address: Url. As `parse_address` gives it.
        deadline: Deadline. Watches the connection.
        seconds: float. For connecting, to each of the host's addresses in turn.
        allow_private: bool. Whether addresses outside the public internet are connected to.

    Raises:
        RecordError: stage `download`, reason `private address`.
        OSError: of name resolution, the connection or TLS; TimeoutError where it took too long.
        UnicodeError: where no host can have that name.
    """
    scheme, host = str(address.scheme), str(address.host).strip("[]")
    port = address.port or _PORTS[scheme]
    connection: _HTTP
    if scheme == "https":
        connection = _HTTPS(host, port, timeout=seconds, ssl_context=_tls_context())
    else:
        connection = _HTTP(host, port, timeout=seconds)
    connection.deadline, connection.allow_private = deadline, allow_private
    try:
        connection.connect()
    except BaseException:
        connection.close()
        raise
    return connection


class _HTTP(HTTPConnection):
    """Connects to checked addresses only, where urllib3's own connection would resolve the host."""

    deadline: Deadline
    allow_private: bool

    def _new_conn(self) -> socket.socket:
        seconds = float(self.timeout or 0)
        made = _connect(self._dns_host, self.port, seconds, self.deadline, self.allow_private)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self.deadline.watch(made)
        except BaseException:
            made.close()
            raise
        return made


class _HTTPS(_HTTP, HTTPSConnection):
    """The same over TLS."""


def _connect(host: str, port: int, seconds: float, deadline: Deadline, allow_private: bool) -> socket.socket:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    allowed = [one for one in found if allow_private or is_public(str(one[4][0]))]
    if not allowed:
        location = ", ".join(sorted({str(one[4][0]) for one in found}))
        raise _refused("private address", f"{host} is {location}", permanent=False)
    failed: OSError | None = None
    for family, kind, protocol, _, place in allowed:
        deadline.check()
        made = socket.socket(family, kind, protocol)
        try:
            made.settimeout(min(seconds, deadline.left) or seconds)
            made.connect(place)
            made.settimeout(seconds)
        except OSError as error:
            made.close()
            failed = error
        else:
            return made
    raise failed or OSError("no address")


@lru_cache(maxsize=1)
def _tls_context() -> ssl.SSLContext:
    """The system's certificates, which take milliseconds to read."""
    return ssl.create_default_context()


def _refused(reason: str, detail: str, permanent: bool = True) -> RecordError:
    return RecordError("download", reason, detail, permanent=permanent)
