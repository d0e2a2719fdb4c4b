"""Parses the URIs of objects.

A URI is `scheme://bucket/key`, with the key as it is, without escapes. `scheme://anonymous@bucket/key` sends no
credentials. All other credentials are those of the services' own tools: environment variables, their files, or the
machine's role.
"""

import os
import re

from schemas.errors import UsageError

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_uri(location: str) -> bool:
    """Returns whether a location begins with a scheme, such as `s3://`, and is not a path."""
    return bool(_SCHEME.match(location))


def parse_uri(uri: str) -> tuple[str, str, str, bool]:
    """Splits a URI into scheme, bucket, key (empty for a whole bucket) and whether it is anonymous.

    Raises:
        UsageError: The scheme is neither `s3` nor `gs`, the bucket is missing, or the URI contains credentials.
    """
    scheme, _, rest = uri.partition("://")
    authority, _, key = rest.partition("/")
    user, at, bucket = authority.rpartition("@")
    location = f"{scheme}://…@{bucket}" if at else uri
    if scheme not in ("s3", "gs"):
        hint = "Copy the files to a bucket or to this machine."
        raise UsageError(f"{scheme}:// is not supported; only s3:// and gs:// are", location=location, hint=hint)
    if not bucket:
        raise UsageError("the URI has no bucket", location=location)
    if at and user != "anonymous":
        hint = "Set the credentials in environment variables."
        raise UsageError("the URI contains credentials", location=location, hint=hint)
    return scheme, bucket, key, bool(at)


def resolve_endpoint(scheme: str) -> str:
    """Returns the service's URL that the environment names; empty for the provider's own service."""
    if scheme == "gs":
        return os.environ.get("STORAGE_EMULATOR_HOST", "")
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
