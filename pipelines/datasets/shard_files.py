"""Finds the shards of a dataset: the files that paths, directories, URIs and brace patterns name."""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from features.inputs import is_collection, list_files
from features.io.brace_patterns import expand_braces, has_braces
from features.io.objects import classify_uri
from features.io.open_files import FileState, stat_file
from features.io.uris import is_uri
from features.text.record_fields import find_split_in_name
from schemas.errors import UsageError


class Shard(NamedTuple):
    """A file of a dataset with several files.

    Attributes:
        location: Absolute path, or URI.
        label: The shortest end of the path that no other shard has.
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
    found = dict(one for path in paths for one in _find(path, suffixes, expand=expand))
    locations = list(found)
    labels = shorten_paths(locations)
    return [
        Shard(location, label, _find_split(found[location]), _stat(location))
        for location, label in zip(locations, labels, strict=True)
    ]


def shorten_paths(paths: Iterable[str]) -> list[str]:
    """Returns the shortest ends of paths that are distinct, all with the same number of parts."""
    parts = [PurePosixPath(path).parts for path in paths]
    for length in count(1):
        labels = ["/".join(part[-length:]) for part in parts]
        if len(set(labels)) == len(labels) or length >= max(map(len, parts), default=0):
            return labels
    raise AssertionError


def _find(path: str, suffixes: Sequence[str], *, expand: bool) -> Iterator[tuple[str, str]]:
    """Yields location, and the part of the path that may state a split."""
    if _exists(path):
        yield from _find_existing(path, suffixes)
    elif expand and has_braces(path):
        fixed = path[: path.index("{")].rpartition("/")[0]
        for one in expand_braces(path):
            yield _make_absolute(one), one[len(fixed) :].lstrip("/")
    else:
        raise UsageError("no such file or directory", location=path, hint="Check the path.")


def _exists(path: str) -> bool:
    return bool(path) and (classify_uri(path) is not None if is_uri(path) else Path(path).exists())


def _find_existing(path: str, suffixes: Sequence[str]) -> Iterator[tuple[str, str]]:
    if path.lower().endswith(tuple(suffixes)) or not is_collection(path):
        yield _make_absolute(path), PurePosixPath(path).name
        return
    found = sorted((one.name, one.reference.location) for one in list_files(path) if _has_suffix(one.name, suffixes))
    if not found:
        wanted = " or ".join(f"*{suffix}" for suffix in suffixes)
        raise UsageError(f"the path contains no {wanted}", location=path, hint="Check the path.")
    yield from ((location, name) for name, location in found)


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


def _make_absolute(path: str) -> str:
    return path if is_uri(path) else os.fspath(Path(path).absolute())
