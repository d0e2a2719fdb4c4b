"""Transfers: whole objects to local files and back, through `pyarrow.fs`, whatever drops or throttles on the way."""

import errno
import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from features.io.object_stores import describe_unreachable, open_object_store
from features.io.retries import TransientError, retry

CHUNK = 8 << 20

# What pyarrow's file systems say of errors that come again; of all others it is an attempt worth.
_DENIED = re.compile(r"access_denied|permission.denied|unauthenticated|http status 40[13]", re.IGNORECASE)
_LASTING = re.compile(r"no_such_bucket|invalid|http status 4(?!08|29)\d\d", re.IGNORECASE)

Answer = TypeVar("Answer")


def download(address: str, size: int, target: Path) -> str:
    """Write an object's bytes to a local file; their SHA-256.

    Args:
        address: str. The object.
        size: int. How many bytes it has; fewer are none at all.
        target: Path. The file.

    Raises:
        FileNotFoundError: there is no such object.
        PermissionError: the service does not allow it.
        CaptError: it cannot be reached.
    """

    def fetch() -> str:
        # What is there already may stand for the room that it takes, so it is written over and not cut off.
        target.touch()
        with target.open("r+b") as file:
            digest = _read(address, size, file.write)
            file.truncate()
            return digest

    return retry(fetch, address)


def digest_of(address: str, size: int) -> str:
    """SHA-256 of an object's bytes, read and not kept; raises as `download`."""
    return retry(lambda: _read(address, size, lambda _: None), address)


def upload(source: Path, address: str) -> None:
    """Put a local file's bytes at an address, in place of what was there.

    Who is killed midway leaves nothing there: an object appears when its last part has come.

    Raises:
        PermissionError: the service does not allow it.
        CaptError: it cannot be reached.
    """
    from pyarrow import ArrowInvalid

    filesystem, path = open_object_store(address)

    def write() -> None:
        with source.open("rb") as file, filesystem.open_output_stream(path) as out:
            while chunk := file.read(CHUNK):
                out.write(chunk)

    def put() -> None:
        try:
            _asked(write, address)
        except (FileNotFoundError, ArrowInvalid) as error:
            # An upload in parts whose last answer was lost is known no more, or refuses to go on.
            raise TransientError(str(error)) from error
        found = _asked(lambda: filesystem.get_file_info(path), address).size
        if found != source.stat().st_size:
            raise TransientError(f"{found} of {source.stat().st_size} bytes went there")

    retry(put, address)


def _read(address: str, size: int, take: Callable[[bytes], object]) -> str:
    """An object's bytes from the first to the last, once; their SHA-256."""
    filesystem, path = open_object_store(address)
    digest, came = hashlib.sha256(), 0

    def read() -> None:
        nonlocal came
        with filesystem.open_input_stream(path) as source:
            while chunk := source.read(CHUNK):
                digest.update(chunk)
                take(chunk)
                came += len(chunk)

    _asked(read, address)
    if came != size:
        raise TransientError(f"{came} of {size} bytes came")
    return digest.hexdigest()


def _asked(request: Callable[[], Answer], address: str) -> Answer:
    """What a request to pyarrow gives; its errors told apart by what they say, for they are all of one class."""
    try:
        return request()
    except FileNotFoundError:
        raise
    except OSError as error:
        text = str(error)
        if _DENIED.search(text):
            raise PermissionError(errno.EACCES, "not allowed", address) from error
        if _LASTING.search(text):
            raise describe_unreachable(error, address) from error
        raise TransientError(text) from error
