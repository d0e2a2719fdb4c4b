"""Accesses buckets of S3 and of compatible services through boto3."""

import contextlib
import os
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from features.io.bucket import MAX_CONNECTIONS, TIMEOUT_SECONDS, WRITER_KEY, Bucket, ObjectInfo, translate_status
from features.io.retries import TransientError, describe_unreachable
from schemas.errors import UsageError

# The first two answer concurrent conditional puts, and an upload whose end is lost.
_TRANSIENT = (
    "ConditionalRequestConflict",
    "NoSuchUpload",
    "OperationAborted",
    "RequestTimeout",
    "SlowDown",
    "Throttling",
)
_CHUNK_BYTES = 1 << 20
_PART_ATTEMPTS = 4


class S3Bucket(Bucket):
    """A bucket of S3; `anonymous` sends no credentials, and an empty endpoint is Amazon's."""

    def __init__(self, name: str, anonymous: bool, endpoint: str) -> None:
        super().__init__(f"s3://{name}")
        self._name, self._anonymous, self._endpoint = name, anonymous, endpoint
        self._client = self._create_client(attempts=1)

    def stat(self, key: str) -> ObjectInfo | None:
        try:
            answer = self._call(key, "head_object", Key=key)
        except FileNotFoundError:
            return None
        return _object_info({**answer, "Key": key, "Size": answer["ContentLength"]})

    def read(self, key: str, start: int = 0, end: int | None = None) -> bytes:
        byte_range = {} if end is None else {"Range": f"bytes={start}-{end - 1}"}
        get = partial(self._client.get_object, Bucket=self._name, Key=key, **byte_range)
        return self._request(key, lambda: bytes(get()["Body"].read()))

    def read_within(self, key: str, max_bytes: int) -> bytes | None:
        def read() -> bytes | None:
            answer = self._client.get_object(Bucket=self._name, Key=key)
            with contextlib.closing(answer["Body"]) as body:
                return body.read() if answer["ContentLength"] <= max_bytes else None

        return self._request(key, read)

    def put(self, key: str, data: bytes) -> None:
        self._call(key, "put_object", Key=key, Body=data)

    def delete(self, key: str) -> None:
        self._call(key, "delete_object", Key=key)

    def _create(self, key: str, data: bytes, writer: str) -> None:
        self._client.put_object(Bucket=self._name, Key=key, Body=data, IfNoneMatch="*", Metadata={WRITER_KEY: writer})

    def _read_writer(self, key: str) -> str:
        from botocore.exceptions import ClientError

        try:
            answer = self._client.head_object(Bucket=self._name, Key=key)
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
                return ""
            raise
        return str(answer["Metadata"].get(WRITER_KEY, ""))

    def _send(self, source: Path, key: str) -> None:
        with source.open("rb") as file:
            self._upload_client.upload_fileobj(file, self._name, key)

    def _receive(self, key: str, write: Callable[[bytes], object]) -> None:
        body = self._client.get_object(Bucket=self._name, Key=key)["Body"]
        while chunk := body.read(_CHUNK_BYTES):
            write(chunk)

    def _list_pages(
        self, prefix: str, delimiter: str | None = None, limit: int | None = None
    ) -> Iterator[tuple[list[ObjectInfo], list[str]]]:
        given = {"Delimiter": delimiter, "MaxKeys": limit}
        parameters: dict[str, Any] = {name: value for name, value in given.items() if value}
        while True:
            page = self._call(prefix, "list_objects_v2", Prefix=prefix, **parameters)
            prefixes = [item["Prefix"] for item in page.get("CommonPrefixes", ())]
            yield [_object_info(item) for item in page.get("Contents", ())], prefixes
            if not page.get("IsTruncated"):
                return
            parameters["ContinuationToken"] = page["NextContinuationToken"]

    def _call(self, key: str, operation: str, **parameters: Any) -> Any:
        return self._request(key, lambda: getattr(self._client, operation)(Bucket=self._name, **parameters))

    def _translate(self, error: Exception, uri: str) -> Exception:
        from botocore import exceptions
        from urllib3.exceptions import HTTPError

        if isinstance(error, exceptions.ClientError):
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            code = error.response.get("Error", {}).get("Code", "")
            return translate_status(status, str(error), uri, transient=code in _TRANSIENT)
        network = (exceptions.ConnectionError, exceptions.HTTPClientError, HTTPError)
        if isinstance(error, (*network, exceptions.IncompleteReadError, exceptions.FlexibleChecksumError)):
            return TransientError(str(error))
        return describe_unreachable(error, uri) if isinstance(error, exceptions.BotoCoreError) else error

    @cached_property
    def _upload_client(self) -> Any:
        """A client that repeats the parts of a large upload, so that one failed part does not repeat the whole."""
        return self._create_client(_PART_ATTEMPTS)

    def _create_client(self, attempts: int) -> Any:
        try:
            import boto3
            from botocore import UNSIGNED
            from botocore.config import Config
        except ImportError:
            hint = "Run `pip install 'capt[s3]'`."
            raise UsageError("a bucket of S3 needs boto3", location=self._uri, hint=hint) from None
        config = Config(
            connect_timeout=TIMEOUT_SECONDS[0],
            read_timeout=TIMEOUT_SECONDS[1],
            retries={"total_max_attempts": attempts},
            max_pool_connections=MAX_CONNECTIONS,
            s3={"addressing_style": "path" if self._endpoint else "auto"},
            signature_version=UNSIGNED if self._anonymous else None,
        )
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        # boto3's default session is not thread-safe.
        return boto3.session.Session().client(
            "s3",
            region_name=region or ("us-east-1" if self._endpoint else None),
            endpoint_url=self._endpoint or None,
            config=config,
        )


def _object_info(item: dict[str, Any]) -> ObjectInfo:
    modified_ns = round(item["LastModified"].timestamp() * 1e9)
    return ObjectInfo(item["Key"], item["Size"], modified_ns, item["ETag"].strip('"'))
