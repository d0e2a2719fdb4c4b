"""Declares the interface of a bucket: the requests that capt makes to an object store."""

import errno
import hashlib
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from features.io.retries import TransientError, describe_unreachable, retry

TIMEOUT_SECONDS = (5, 30)  # of a connection and of a request
MAX_CONNECTIONS = 64  # at least the number of threads that read at once
WRITER_KEY = "capt-writer"  # metadata of objects that were put conditionally

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class ObjectInfo:
    """The metadata of an object: its size in bytes, and the time of the put in ns since 1970 by the service's clock.

    `tag` is the entity tag or generation, which differs if the contents differ.
    """

    key: str
    size: int
    modified_ns: int
    tag: str


class Bucket(ABC):
    """One bucket of an object store.

    Every method repeats its request while the service is busy or the connection breaks (`features.io.retries`). Every
    method raises FileNotFoundError if the object or bucket is missing, PermissionError if the service denies the
    request, and CaptError for all other errors of the service.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri  # s3://NAME or gs://NAME

    @abstractmethod
    def stat(self, key: str) -> ObjectInfo | None:
        """Returns the metadata of an object; None if the object does not exist."""

    def list_objects(self, prefix: str) -> Iterator[ObjectInfo]:
        """Yields every object whose key begins with `prefix`, ordered by key."""
        for objects, _ in self._list_pages(prefix):
            yield from objects

    def list_level(self, prefix: str) -> tuple[list[str], list[ObjectInfo]]:
        """Lists the prefixes up to and including the next slash, and the objects directly below `prefix`."""
        pages = list(self._list_pages(prefix, delimiter="/"))
        return [one for _, prefixes in pages for one in prefixes], [one for objects, _ in pages for one in objects]

    def has_objects(self, prefix: str) -> bool:
        """Returns whether the key of any object begins with `prefix`."""
        return bool(next(self._list_pages(prefix, limit=1))[0])

    @abstractmethod
    def _list_pages(
        self, prefix: str, delimiter: str | None = None, limit: int | None = None
    ) -> Iterator[tuple[list[ObjectInfo], list[str]]]:
        """Yields the objects and, with a delimiter, the prefixes of each page, which has at most `limit` of them."""

    @abstractmethod
    def read(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        """Reads an object, or its bytes from `start` to before `end`; this range must be within the object."""

    @abstractmethod
    def put(self, key: str, data: bytes) -> None:
        """Puts an object, or replaces it."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Deletes an object if it exists."""

    def read_within(self, key: str, max_bytes: int) -> bytes | None:
        """Reads an object; returns None, without reading it, if it has more than `max_bytes`."""
        info = self.stat(key)
        if info is None:
            raise FileNotFoundError(errno.ENOENT, "no such object", f"{self._uri}/{key}")
        if info.size > max_bytes:
            return None
        return self.read(key, 0, info.size) if info.size else b""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Puts an object unless one exists; returns whether this call put it, also if a response was lost."""
        writer = uuid.uuid4().hex
        try:
            self._request(key, lambda: self._create(key, data, writer))
        except FileExistsError:
            return self._request(key, lambda: self._read_writer(key)) == writer
        return True

    def upload(self, source: Path, key: str) -> None:
        """Puts a local file of any size; an interrupted upload leaves no object."""
        size = source.stat().st_size

        def send() -> None:
            self._send(source, key)
            info = self.stat(key)
            if info is None or info.size != size:
                raise TransientError(f"expected {size} bytes in the bucket, got {info.size if info else 'no object'}")

        self._request(key, send)

    def download(self, key: str, size: int, target: Path) -> str:
        """Writes an object of `size` bytes to a local file and returns its SHA-256."""

        def receive() -> str:
            target.touch()
            # The file may have its full size already, to reserve the space, so it must not be truncated first.
            with target.open("r+b") as file:
                digest = self._receive_all(key, size, file.write)
                file.truncate()
            return digest

        return self._request(key, receive)

    def hash_object(self, key: str, size: int) -> str:
        """Reads an object of `size` bytes and returns its SHA-256."""
        return self._request(key, lambda: self._receive_all(key, size, lambda chunk: None))

    def _receive_all(self, key: str, size: int, write: Callable[[bytes], object]) -> str:
        digest, received = hashlib.sha256(), 0

        def consume(chunk: bytes) -> None:
            nonlocal received
            digest.update(chunk)
            received += len(chunk)
            write(chunk)

        self._receive(key, consume)
        if received != size:
            raise TransientError(f"expected {size} bytes, got {received}")
        return digest.hexdigest()

    def _request(self, key: str, request: Callable[[], Answer]) -> Answer:
        uri = f"{self._uri}/{key}"

        def attempt() -> Answer:
            try:
                return request()
            except Exception as error:
                translated = self._translate(error, uri)
                if translated is error:
                    raise
                raise translated from error

        return retry(attempt, uri)

    # === One attempt each ===

    @abstractmethod
    def _create(self, key: str, data: bytes, writer: str) -> None:
        """Puts an object with the metadata `WRITER_KEY`; the service responds with status 412 if the object exists."""

    @abstractmethod
    def _read_writer(self, key: str) -> str:
        """Reads the metadata `WRITER_KEY` of an object; empty if it or the object is missing."""

    @abstractmethod
    def _send(self, source: Path, key: str) -> None:
        """Uploads a local file."""

    @abstractmethod
    def _receive(self, key: str, write: Callable[[bytes], object]) -> None:
        """Downloads an object in chunks."""

    @abstractmethod
    def _translate(self, error: Exception, uri: str) -> Exception:
        """Returns the error of this interface for an error of the client; any other error unchanged."""


def translate_status(status: int, message: str, uri: str, *, transient: bool = False) -> Exception:
    """Returns the error of `Bucket` for an HTTP status; a TransientError if `transient` is set."""
    if status in (408, 409, 429) or status >= 500 or transient:
        return TransientError(message)
    if status == 404:
        return FileNotFoundError(errno.ENOENT, "no such object", uri)
    if status == 412:
        return FileExistsError(errno.EEXIST, "the object exists already", uri)
    if status in (401, 403):
        return PermissionError(errno.EACCES, "not allowed", uri)
    return describe_unreachable(OSError(message), uri)
