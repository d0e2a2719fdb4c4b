"""Resolves the locations that a user names: local paths, and URIs of objects."""

from pathlib import Path

from features.io.object_path import ROOTS, ObjectPath
from features.io.uris import is_uri, parse_uri
from schemas.errors import UsageError


def parse_location(name: str | Path) -> Path:
    """Returns the absolute path of a local file or directory, or the path of a URI; UsageError for an invalid URI."""
    if isinstance(name, ObjectPath):
        return name
    _check_slashes(name)
    if not is_uri(str(name)):
        return Path(name).absolute()
    parse_uri(str(name))
    if ".." in str(name).split("/"):
        raise UsageError("the URI contains ..", location=str(name))
    return ObjectPath(str(name))


def local_path(name: str | Path, option: str = "") -> Path:
    """Returns a path that must be on this machine; UsageError, naming the command-line option, for a URI."""
    _check_slashes(name)
    if is_remote(name):
        location = f"{option} {name}".strip()
        raise UsageError("this is a URI, but the path must be local", location=location, hint="Choose a local path.")
    return Path(name)


def is_remote(name: str | Path) -> bool:
    """Returns whether a location is in a bucket, not on this machine."""
    return isinstance(name, ObjectPath) or is_uri(str(name))


def _check_slashes(name: str | Path) -> None:
    """Refuses a URI in a `Path`, which removes a slash. A local directory `s3:` is not supported."""
    if isinstance(name, Path) and not isinstance(name, ObjectPath) and str(name).startswith(ROOTS):
        raise UsageError("a Path is not a URI", location=str(name), hint="Pass the URI as a string.")
