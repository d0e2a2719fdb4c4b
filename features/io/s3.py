"""Buckets of S3 and of what speaks its language, through boto3."""

import errno
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from features.io.bucket import Listed
from features.io.object_stores import CONNECT_SECONDS, REQUEST_SECONDS, describe_unreachable, resolve_region
from features.io.retries import TransientError
from schemas.errors import UsageError

# A conditional put that meets another one is told to come again; so is who asks too much, or too slowly.
_PASSING = ("ConditionalRequestConflict", "OperationAborted", "RequestTimeout", "SlowDown", "Throttling")
_WRITER = "capt-writer"


class S3Bucket:
    """A bucket of S3; see `features.io.bucket.Bucket`.

    Args:
        name: str. The bucket.
        anonymous: bool. Whether no credentials are sent.
        endpoint: str. Where the service is; empty for Amazon's.
    """

    def __init__(self, name: str, anonymous: bool, endpoint: str) -> None:
        self._name = name
        self._client = _client(name, anonymous, endpoint)

    def look(self, key: str) -> Listed | None:
        try:
            told = self._ask("head_object", Key=key)
        except FileNotFoundError:
            return None
        return _listed(key, told["ContentLength"], told["LastModified"], told["ETag"])

    def below(self, prefix: str) -> Iterator[Listed]:
        for page in self._pages(prefix):
            yield from _objects(page)

    def level(self, prefix: str) -> tuple[list[str], list[Listed]]:
        prefixes, objects = [], []
        for page in self._pages(prefix, Delimiter="/"):
            prefixes += [one["Prefix"] for one in page.get("CommonPrefixes", ())]
            objects += _objects(page)
        return prefixes, objects

    def has_below(self, prefix: str) -> bool:
        return bool(self._ask("list_objects_v2", Prefix=prefix, MaxKeys=1).get("Contents"))

    def read(self, key: str) -> bytes:
        data: bytes = self._ask("get_object", lambda answer: answer["Body"].read(), Key=key)
        return data

    def put(self, key: str, data: bytes) -> None:
        self._ask("put_object", Key=key, Body=data)

    def put_if_absent(self, key: str, data: bytes, writer: str) -> bool:
        try:
            self._ask("put_object", Key=key, Body=data, IfNoneMatch="*", Metadata={_WRITER: writer})
        except FileExistsError:
            told: str = self._ask("head_object", Key=key)["Metadata"].get(_WRITER, "")
            return told == writer
        return True

    def delete(self, key: str) -> None:
        self._ask("delete_object", Key=key)

    def _pages(self, prefix: str, **more: str) -> Iterator[dict[str, Any]]:
        while True:
            page = self._ask("list_objects_v2", Prefix=prefix, **more)
            yield page
            if not page.get("IsTruncated"):
                return
            more["ContinuationToken"] = page["NextContinuationToken"]

    def _ask(self, request: str, take: Any = lambda answer: answer, **arguments: Any) -> Any:
        from botocore import exceptions

        address = f"s3://{self._name}/{arguments.get('Key', arguments.get('Prefix', ''))}"
        try:
            return take(getattr(self._client, request)(Bucket=self._name, **arguments))
        except exceptions.ClientError as error:
            raise _meaning(error, address) from error
        except (exceptions.HTTPClientError, exceptions.IncompleteReadError) as error:
            raise TransientError(str(error)) from error
        except exceptions.BotoCoreError as error:
            raise describe_unreachable(OSError(str(error)), address) from error


def _meaning(error: Any, address: str) -> Exception:
    """What an answer that is an error means."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = error.response.get("Error", {}).get("Code", "")
    if status == 404:
        return FileNotFoundError(errno.ENOENT, code, address)
    if status == 412:
        return FileExistsError(errno.EEXIST, code, address)
    if status in (401, 403):
        return PermissionError(errno.EACCES, f"not allowed: {code}", address)
    if status in (409, 429) or status >= 500 or code in _PASSING:
        return TransientError(str(error))
    return describe_unreachable(OSError(str(error)), address)


def _objects(page: dict[str, Any]) -> list[Listed]:
    return [_listed(one["Key"], one["Size"], one["LastModified"], one["ETag"]) for one in page.get("Contents", ())]


def _listed(key: str, size: int, modified: datetime, tag: str) -> Listed:
    return Listed(key, size, round(modified.timestamp() * 1e9), tag.strip('"'))


def _client(name: str, anonymous: bool, endpoint: str) -> Any:
    try:
        import boto3
        from botocore import UNSIGNED
        from botocore.config import Config
    except ImportError:
        raise UsageError(
            "a store on S3 needs boto3", location=f"s3://{name}", hint='install it with: pip install "capt[s3]"'
        ) from None
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=REQUEST_SECONDS,
        retries={"total_max_attempts": 1},  # features.io.retries makes them again
        s3={"addressing_style": "path" if endpoint else "auto"},
        signature_version=UNSIGNED if anonymous else None,
    )
    # A session of its own: boto3's default one is not for several threads.
    return boto3.session.Session().client(
        "s3", region_name=resolve_region(endpoint) or None, endpoint_url=endpoint or None, config=config
    )
