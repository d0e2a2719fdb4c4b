"""Answers of name servers are kept for a time, in bounded number, and are checked like new ones."""

import socket
import time
from io import BytesIO
from typing import Any

import pytest

from features.inputs.image_urls import DownloadLimits, download_into
from features.io.host_addresses import AddressCache
from schemas.errors import RecordError

ONCE = DownloadLimits(connect_seconds=0.5, total_seconds=2.0, retries=0)


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hosts that are looked up. Each is this machine; `gone` does not exist, and `later` fails temporarily."""
    hosts: list[str] = []

    def look_up(host: str, port: int, type: int) -> Any:  # noqa: A002
        hosts.append(host)
        if host in ("gone", "later"):
            raise socket.gaierror(socket.EAI_NONAME if host == "gone" else socket.EAI_AGAIN, host)
        return [(socket.AF_INET, type, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr("features.io.host_addresses.socket.getaddrinfo", look_up)
    return hosts


def test_the_hosts_that_were_used_last_are_kept(looked_up: list[str]) -> None:
    addresses = AddressCache(max_hosts=2)
    for host in ("a", "b", "a", "c", "a", "b"):
        assert addresses.resolve(host, 80)[0][4] == ("127.0.0.1", 80)
    assert looked_up == ["a", "b", "c", "b"]


def test_an_answer_is_kept_for_a_time(looked_up: list[str]) -> None:
    addresses = AddressCache(seconds=-1)
    addresses.resolve("a", 80)
    addresses.resolve("a", 80)
    assert looked_up == ["a", "a"]


def test_only_a_permanent_error_is_kept(looked_up: list[str]) -> None:
    addresses = AddressCache()
    for host in ("gone", "gone", "later", "later"):
        with pytest.raises(socket.gaierror, match=host):
            addresses.resolve(host, 80)
    assert looked_up == ["gone", "later", "later"]


def test_a_missing_host_is_kept_for_a_shorter_time(looked_up: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    addresses, now = AddressCache(), time.monotonic()
    for seconds in (0, 5, 15):
        monkeypatch.setattr("features.io.host_addresses.time.monotonic", lambda later=now + seconds: later)
        addresses.resolve("a", 80)
        with pytest.raises(socket.gaierror, match="gone"):
            addresses.resolve("gone", 80)
    assert looked_up == ["a", "gone", "gone"]


def test_a_kept_private_address_is_refused_each_time(looked_up: list[str]) -> None:
    addresses = AddressCache()
    for _ in range(2):
        with pytest.raises(RecordError) as caught:
            download_into("http://a/1.jpg", BytesIO(), ONCE, addresses=addresses)
        assert caught.value.reason == "private address"
    assert looked_up == ["a"]


def test_an_unreachable_host_is_looked_up_again(looked_up: list[str]) -> None:
    limits, addresses = (
        DownloadLimits(connect_seconds=0.5, retries=1, backoff_seconds=0, allow_private=True),
        AddressCache(),
    )
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with pytest.raises(RecordError):
            download_into(f"http://a:{nobody.getsockname()[1]}/1.jpg", BytesIO(), limits, addresses=addresses)
    assert looked_up == ["a", "a"]
