"""Accesses buckets of Google Cloud Storage through google-cloud-storage."""

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from features.io.bucket import MAX_CONNECTIONS, TIMEOUT_SECONDS, WRITER_KEY, Bucket, ObjectInfo, translate_status
from features.io.retries import TransientError, describe_unreachable
from schemas.errors import UsageError

# `features.io.retries` repeats requests.
_ONCE: dict[str, Any] = {"retry": None, "timeout": TIMEOUT_SECONDS}


class GCSBucket(Bucket):
    """A bucket of GCS; `anonymous` sends no credentials."""

    def __init__(self, name: str, anonymous: bool) -> None:
        super().__init__(f"gs://{name}")
        self._name = name
        self._client = self._create_client(anonymous)
        self._bucket = self._client.bucket(name)

    def stat(self, key: str) -> ObjectInfo | None:
        blob = self._request(key, lambda: self._bucket.get_blob(key, **_ONCE))
        return _object_info(blob) if blob else None

    def read(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        # The client verifies the checksum of a whole object only.
        byte_range = {} if end is None else {"start": start, "end": end - 1}
        return self._request(key, lambda: bytes(self._bucket.blob(key).download_as_bytes(**byte_range, **_ONCE)))

    def put(self, key: str, data: bytes) -> None:
        self._request(key, lambda: self._bucket.blob(key).upload_from_string(data, **_ONCE))

    def delete(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._request(key, lambda: self._bucket.blob(key).delete(**_ONCE))

    def _create(self, key: str, data: bytes, writer: str) -> None:
        blob = self._bucket.blob(key)
        blob.metadata = {WRITER_KEY: writer}
        blob.upload_from_string(data, if_generation_match=0, **_ONCE)

    def _read_writer(self, key: str) -> str:
        blob = self._bucket.get_blob(key, **_ONCE)
        return str((blob.metadata or {}).get(WRITER_KEY, "")) if blob else ""

    def _send(self, source: Path, key: str) -> None:
        self._bucket.blob(key).upload_from_filename(str(source), **_ONCE)

    def _receive(self, key: str, write: Callable[[bytes], object]) -> None:
        self._bucket.blob(key).download_to_file(_Sink(write), **_ONCE)

    def _list_pages(
        self, prefix: str, delimiter: str | None = None, limit: int | None = None
    ) -> Iterator[tuple[list[ObjectInfo], list[str]]]:
        token = None
        while True:

            def fetch(token: str | None = token) -> tuple[list[ObjectInfo], list[str], str | None]:
                options = {"prefix": prefix, "delimiter": delimiter, "max_results": limit, "page_token": token}
                blobs = self._client.list_blobs(self._name, **options, **_ONCE)
                page = [_object_info(blob) for blob in next(blobs.pages, ())]
                return page, sorted(blobs.prefixes), blobs.next_page_token

            objects, prefixes, token = self._request(prefix, fetch)
            yield objects, prefixes
            if not token:
                return

    def _translate(self, error: Exception, uri: str) -> Exception:
        import requests
        import urllib3
        from google.api_core.exceptions import GoogleAPICallError
        from google.auth.exceptions import GoogleAuthError, TransportError
        from google.cloud.storage.exceptions import DataCorruption

        if isinstance(error, GoogleAPICallError):
            return translate_status(int(error.code or 0), str(error), uri)
        network = (requests.RequestException, urllib3.exceptions.HTTPError, TransportError, ConnectionError)
        if isinstance(error, (*network, DataCorruption)):
            return TransientError(str(error))
        return describe_unreachable(error, uri) if isinstance(error, GoogleAuthError) else error

    def _create_client(self, anonymous: bool) -> Any:
        try:
            from google.auth.credentials import AnonymousCredentials
            from google.auth.exceptions import GoogleAuthError
            from google.cloud import storage
            from requests.adapters import HTTPAdapter
        except ImportError:
            hint = "Run `pip install 'capt[gcs]'`."
            raise UsageError("a bucket of GCS needs google-cloud-storage", location=self._uri, hint=hint) from None
        # The client requires a project; objects belong to buckets, so its name has no effect.
        project = os.environ.get("GOOGLE_CLOUD_PROJECT") or "capt"
        is_anonymous = anonymous or os.environ.get("STORAGE_EMULATOR_HOST")
        try:
            client = storage.Client(project=project, credentials=AnonymousCredentials() if is_anonymous else None)  # type: ignore[no-untyped-call]
        except GoogleAuthError as error:
            raise describe_unreachable(error, self._uri) from error
        for scheme in ("http://", "https://"):
            client._http.mount(scheme, HTTPAdapter(pool_maxsize=MAX_CONNECTIONS))
        return client


class _Sink(io.RawIOBase):
    """A file that passes on what is written to it."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._write(bytes(data))
        return len(data)


def _object_info(blob: Any) -> ObjectInfo:
    return ObjectInfo(blob.name, int(blob.size), round(blob.updated.timestamp() * 1e9), str(blob.generation))
