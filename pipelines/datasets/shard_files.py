"""Finds the shards of a dataset: the files that paths, directories, URIs and brace patterns name."""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from features.inputs import is_collection, list_files
from features.io.brace_patterns import expand_braces, has_braces
from features.io.objects import classify_uri
from features.io.open_files import FileState, stat_file
from features.io.uris import is_uri
from features.text.record_fields import find_split_in_name
from pipelines.datasets.roots import make_absolute, shorten_paths
from schemas.errors import UsageError


class Shard(NamedTuple):
    """A file of a dataset with several files.

    Attributes:
        location: Absolute path, or URI.
        label: Path below the named directory, prefix or fixed part of a pattern; its name if the file itself is named.
            If two shards would have one label, both have longer ends of their paths.
        split: The split that its name states, or else the directory below the named path; None without one.
        state: State of the file.
    """

    location: str
    label: str
    split: str | None
    state: FileState


def find_shards(paths: Sequence[str], suffixes: Sequence[str], *, expand: bool = False) -> list[Shard]:
    """Returns the shards in the order of the paths; those of a directory, and of a prefix in a bucket, by name.

    Args:
        paths: Files of any name, or directories and prefixes, of which the files with one of the suffixes are used.
        suffixes: Such as `.tar`, in lower case.
        expand: Whether to expand braces in a path, unless a file of this name exists.

    Raises:
        UsageError: A path does not exist, or contains no such file.
    """
    found: dict[str, str] = {}
    for path in paths:
        for location, name in _find(path, suffixes, expand=expand):
            found[location] = max(found.get(location, ""), name, key=len)
    locations = list(found)
    labels = shorten_paths(locations, [len(PurePosixPath(name).parts) for name in found.values()])
    return [
        Shard(location, label, _find_split(found[location]), _stat(location))
        for location, label in zip(locations, labels, strict=True)
    ]


def _find(path: str, suffixes: Sequence[str], *, expand: bool) -> Iterator[tuple[str, str]]:
    """Yields location, and the part of the path below the one that is named."""
    if _exists(path):
        yield from _find_existing(path, suffixes)
    elif expand and has_braces(path):
        fixed = path[: path.index("{")].rpartition("/")[0]
        for one in expand_braces(path):
            yield make_absolute(one), one[len(fixed) :].lstrip("/")
    else:
        raise UsageError("no such file or directory", location=path, hint="Check the path.")


def _exists(path: str) -> bool:
    return bool(path) and (classify_uri(path) is not None if is_uri(path) else Path(path).exists())


def _find_existing(path: str, suffixes: Sequence[str]) -> Iterator[tuple[str, str]]:
    is_directory = not is_uri(path) and Path(path).is_dir()
    if not is_directory and (_has_suffix(path, suffixes) or not is_collection(path)):
        yield make_absolute(path), PurePosixPath(path).name
        return
    listed = [one for one in list_files(path) if _has_suffix(one.name, suffixes)]
    if any(one.reference.member for one in listed):
        raise UsageError("shards in an archive cannot be read in place", location=path, hint="Unpack the archive.")
    found = sorted((one.name, one.reference.location) for one in listed)
    if not found:
        wanted = " or ".join(f"*{suffix}" for suffix in suffixes)
        raise UsageError(f"the path contains no {wanted}", location=path, hint="Check the path.")
    yield from ((make_absolute(location), name) for name, location in found)


def _has_suffix(name: str, suffixes: Sequence[str]) -> bool:
    return name.lower().endswith(tuple(suffixes))


def _find_split(path: str) -> str | None:
    """Returns the split that the last part of a path states that states one."""
    return next(filter(None, map(find_split_in_name, reversed(PurePosixPath(path).parts))), None)


def _stat(location: str) -> FileState:
    try:
        return stat_file(location)
    except OSError as error:
        message = f"the file cannot be read: {error.strerror or error}"
        raise UsageError(message, location=location, hint="Check the path or pattern.") from None
