"""Buckets of Google Cloud Storage, through google-cloud-storage."""

import errno
import os
from collections.abc import Iterator
from typing import Any

from features.io.bucket import Listed
from features.io.object_stores import CONNECT_SECONDS, REQUEST_SECONDS, describe_unreachable
from features.io.retries import TransientError
from schemas.errors import UsageError

_WRITER = "capt-writer"
# What is asked for once: features.io.retries makes requests again.
_ONCE: dict[str, Any] = {"retry": None, "timeout": (CONNECT_SECONDS, REQUEST_SECONDS)}


class GCSBucket:
    """A bucket of GCS; see `features.io.bucket.Bucket`.

    Args:
        name: str. The bucket.
        anonymous: bool. Whether no credentials are sent.
    """

    def __init__(self, name: str, anonymous: bool) -> None:
        self._name = name
        self._client = _client(name, anonymous)
        self._bucket = self._client.bucket(name)

    def look(self, key: str) -> Listed | None:
        blob = self._ask(key, lambda: self._bucket.get_blob(key, **_ONCE))
        return _listed(blob) if blob else None

    def below(self, prefix: str) -> Iterator[Listed]:
        yield from self._ask(prefix, lambda: [_listed(blob) for blob in self._list(prefix)])

    def level(self, prefix: str) -> tuple[list[str], list[Listed]]:
        def listed() -> tuple[list[str], list[Listed]]:
            pages = self._list(prefix, delimiter="/")
            objects = [_listed(blob) for blob in pages]
            return sorted(pages.prefixes), objects

        found: tuple[list[str], list[Listed]] = self._ask(prefix, listed)
        return found

    def has_below(self, prefix: str) -> bool:
        return bool(self._ask(prefix, lambda: list(self._list(prefix, max_results=1))))

    def read(self, key: str) -> bytes:
        data: bytes = self._ask(key, lambda: self._bucket.blob(key).download_as_bytes(**_ONCE))
        return data

    def put(self, key: str, data: bytes) -> None:
        self._ask(key, lambda: self._bucket.blob(key).upload_from_string(data, **_ONCE))

    def put_if_absent(self, key: str, data: bytes, writer: str) -> bool:
        blob = self._bucket.blob(key)
        blob.metadata = {_WRITER: writer}
        try:
            self._ask(key, lambda: blob.upload_from_string(data, if_generation_match=0, **_ONCE))
        except FileExistsError:
            found = self._ask(key, lambda: self._bucket.get_blob(key, **_ONCE))
            return bool(found) and (found.metadata or {}).get(_WRITER) == writer
        return True

    def delete(self, key: str) -> None:
        try:
            self._ask(key, lambda: self._bucket.blob(key).delete(**_ONCE))
        except FileNotFoundError:
            return

    def _list(self, prefix: str, **more: Any) -> Any:
        return self._client.list_blobs(self._name, prefix=prefix, **more, **_ONCE)

    def _ask(self, key: str, request: Any) -> Any:
        import requests
        import urllib3
        from google.api_core.exceptions import GoogleAPICallError
        from google.auth.exceptions import GoogleAuthError, TransportError
        from google.cloud.storage.exceptions import DataCorruption

        address = f"gs://{self._name}/{key}"
        try:
            return request()
        except GoogleAPICallError as error:
            raise _meaning(error, address) from error
        except (requests.RequestException, urllib3.exceptions.HTTPError, DataCorruption, TransportError) as error:
            raise TransientError(str(error)) from error
        except (GoogleAuthError, ConnectionError) as error:
            if isinstance(error, ConnectionError):
                raise TransientError(str(error)) from error
            raise describe_unreachable(OSError(str(error)), address) from error


def _meaning(error: Any, address: str) -> Exception:
    """What an answer that is an error means."""
    status = int(error.code or 0)
    if status == 404:
        return FileNotFoundError(errno.ENOENT, "no such object", address)
    if status == 412:
        return FileExistsError(errno.EEXIST, "there already", address)
    if status in (401, 403):
        return PermissionError(errno.EACCES, "not allowed", address)
    if status in (408, 409, 429) or status >= 500:
        return TransientError(str(error))
    return describe_unreachable(OSError(str(error)), address)


def _listed(blob: Any) -> Listed:
    return Listed(blob.name, int(blob.size), round(blob.updated.timestamp() * 1e9), str(blob.generation))


def _client(name: str, anonymous: bool) -> Any:
    try:
        from google.auth.credentials import AnonymousCredentials
        from google.auth.exceptions import GoogleAuthError
        from google.cloud import storage
    except ImportError:
        raise UsageError(
            "a store on GCS needs google-cloud-storage",
            location=f"gs://{name}",
            hint='install it with: pip install "capt[gcs]"',
        ) from None
    # Objects belong to buckets, not to projects: the name is asked for and means nothing here.
    project = os.environ.get("GOOGLE_CLOUD_PROJECT") or "capt"
    if anonymous or os.environ.get("STORAGE_EMULATOR_HOST"):
        return storage.Client(project=project, credentials=AnonymousCredentials())  # type: ignore[no-untyped-call]
    try:
        return storage.Client(project=project)
    except GoogleAuthError as error:
        raise describe_unreachable(OSError(str(error)), f"gs://{name}") from error
