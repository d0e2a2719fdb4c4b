"""Object stores as file systems: S3 and GCS through `pyarrow.fs`.

An address is `scheme://bucket/key`, the key as it is, without escapes; `scheme://anonymous@bucket/key` sends no
credentials. Those come from where the services' own tools take them: the environment, their files, the machine.
"""

import os
from datetime import timedelta
from functools import lru_cache
from typing import Any

from schemas.errors import CaptError, UsageError
from schemas.secrets import strip_user

_SCHEMES = ("s3", "gs")
ANONYMOUS = "anonymous"
CONNECT_SECONDS = 5
REQUEST_SECONDS = 30
_ATTEMPTS = 4
_RETRY_SECONDS = 8
_SHOWN = 300
_MEND = "check the address, the credentials and the network"


def check_address(address: str) -> None:
    """UsageError where an address is none that can be read: another scheme, no bucket, or a password in it."""
    scheme, _, rest = address.partition("://")
    user, at, bucket = rest.partition("/")[0].rpartition("@")
    location = f"{scheme}://…@{bucket}" if at else address
    if scheme not in _SCHEMES:
        raise UsageError(f"{scheme}:// is not read, only s3:// and gs:// are", location=location, hint="copy it there")
    if not bucket:
        raise UsageError("the address names no bucket", location=location)
    if at and user != ANONYMOUS:
        raise UsageError("an address holds no credentials", location=location, hint="give them in the environment")


def open_object_store(address: str) -> tuple[Any, str]:
    """The file system that an address belongs to, and its path there.

    Raises:
        UsageError: the address is none.
        CaptError: the bucket's region cannot be told.
    """
    check_address(address)
    scheme, _, rest = address.partition("://")
    user, _, path = rest.rpartition("@") if rest.startswith(f"{ANONYMOUS}@") else ("", "", rest)
    path = path.rstrip("/")
    try:
        if scheme == "gs":
            return _gcs(bool(user), resolve_endpoint(scheme)), path
        return _s3(path.partition("/")[0], bool(user), resolve_endpoint(scheme)), path
    except OSError as error:
        raise describe_unreachable(error, address) from error


def resolve_endpoint(scheme: str) -> str:
    """Where the environment says that a service is; empty for the service's own address."""
    if scheme == "gs":
        return os.environ.get("STORAGE_EMULATOR_HOST", "")
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def resolve_region(endpoint: str) -> str:
    """The region of S3 that the environment names, or any for an endpoint of its own; empty where neither says."""
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return region or ("us-east-1" if endpoint else "")


def describe_unreachable(error: OSError, address: str) -> CaptError:
    """What a command says of a service that does not give what it should."""
    return CaptError(f"it cannot be reached: {shorten_error(error)}", location=address, hint=_MEND)


def shorten_error(error: OSError) -> str:
    """What a service said, without what it says to machines."""
    said = strip_user(str(error))  # An endpoint that the environment names may have a password.
    return " ".join(said.split(" error_info=")[0].split(" (Request ID")[0].split())[:_SHOWN]


@lru_cache(maxsize=64)
def _s3(bucket: str, anonymous: bool, endpoint: str) -> Any:
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem, resolve_s3_region

    return S3FileSystem(
        anonymous=anonymous,
        region=resolve_region(endpoint) or resolve_s3_region(bucket),
        endpoint_override=endpoint or None,
        connect_timeout=CONNECT_SECONDS,
        request_timeout=REQUEST_SECONDS,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
    )


@lru_cache(maxsize=4)
def _gcs(anonymous: bool, emulator: str) -> Any:
    from pyarrow.fs import GcsFileSystem

    patience = timedelta(seconds=_RETRY_SECONDS)
    if not emulator:
        return GcsFileSystem(anonymous=anonymous, retry_time_limit=patience)
    scheme, _, host = emulator.rpartition("://")
    return GcsFileSystem(
        anonymous=True, endpoint_override=host.rstrip("/"), scheme=scheme or "http", retry_time_limit=patience
    )
