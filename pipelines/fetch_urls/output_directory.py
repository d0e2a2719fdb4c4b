"""Checks that a directory belongs to the same lists and options, and holds it for one run."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from features.inputs.archives import escape_bytes
from features.io.atomic_files import hash_file, make_directory, write
from features.io.locations import local_path
from features.io.locks import hold_lock
from features.io.temporary_names import is_temporary
from features.io.uris import is_uri
from pipelines.datasets.shard_files import Shard
from schemas.errors import CaptError, UsageError
from schemas.options.data import FetchUrls
from schemas.strict_json import parse_json
from schemas.table_config import canonical_json

_SETTINGS = "fetch.json"
_LOCK = ".fetching.lock"
UNFINISHED = ".unfinished"  # directory of the shards whose downloads have not ended
# Options that change no record of a shard.
_FREE_OPTIONS = {"lists", "directory", "num_threads", "max_failures"}


@contextlib.contextmanager
def hold_directory(options: FetchUrls, lists: Sequence[Shard]) -> Iterator[Path]:
    """Yields the output directory, created if it is missing. No other run writes to it meanwhile.

    Raises:
        UsageError: The path is not a local directory, or the directory has shards of other lists or options, or files
            of something else.
        LockedError: Another run writes to the directory.
        CaptError: A list cannot be read.
    """
    directory = local_path(options.directory)
    _check_lists(options.lists, directory)
    unnamed = next((one for one in lists if escape_bytes(one.label) != one.label), None)
    if unnamed:
        location = escape_bytes(unnamed.location)
        raise UsageError("the name of the list is not UTF-8", location=location, hint="Rename the file.")
    _check_contents(directory)
    with hold_lock(directory / _LOCK, "downloading"):
        settings = {
            "lists": [_describe_list(one) for one in lists],
            "options": options.model_dump(mode="json", exclude=_FREE_OPTIONS),
        }
        _check_settings(directory / _SETTINGS, settings)
        for path in filter(is_temporary, directory.iterdir()):
            path.unlink()
        yield directory


def _check_lists(lists: Sequence[str], directory: Path) -> None:
    """Checks that the Parquet files of the directory do not become lists of the next run."""
    for given in lists:
        if is_uri(given) or not local_path(given).is_dir():
            continue
        if directory.absolute().is_relative_to(local_path(given).absolute()):
            message = "the directory of the shards is in the directory of the lists"
            raise UsageError(message, location=str(directory), hint="Choose another directory.")


def _check_contents(directory: Path) -> None:
    if directory.exists() and not directory.is_dir():
        hint = "The last argument is the directory of the shards."
        raise UsageError("this is a file, not a directory", location=str(directory), hint=hint)
    try:
        make_directory(directory)
    except OSError as error:
        message = f"the directory cannot be created: {error.strerror}"
        raise UsageError(message, location=str(directory)) from error
    others = [path for path in directory.iterdir() if path.name != _LOCK and not is_temporary(path)]
    if others and not (directory / _SETTINGS).exists():
        hint = "Choose a directory that is empty or does not exist yet."
        raise UsageError("the directory has other files", location=str(directory), hint=hint)


def _describe_list(shard: Shard) -> dict[str, str]:
    """Returns what identifies a list: its name, the hash of a file, or the version of an object."""
    if is_uri(shard.location):
        return {"name": shard.label, "version": shard.state.version}
    try:
        return {"name": shard.label, "sha256": hash_file(Path(shard.location))}
    except OSError as error:
        raise CaptError(f"the file cannot be read: {error.strerror or error}", location=shard.location) from error


def _check_settings(path: Path, settings: dict[str, Any]) -> None:
    """Writes the settings of this run, or compares them with those of the run that began the shards."""
    has_shards = any(one.suffix in (".tar", ".parquet") or one.name == UNFINISHED for one in path.parent.iterdir())
    if not path.exists() or not has_shards:
        write(path, canonical_json(settings))
        return
    try:
        found = parse_json(path.read_bytes())
        changed = _list_changes(found, settings)
    except (ValueError, TypeError, KeyError, AttributeError):
        hint = "Choose another directory."
        raise UsageError("the file is not that of an earlier run", location=str(path), hint=hint) from None
    if changed:
        message = f"the directory has shards of {' and '.join(changed)}"
        hint = "Run the command as before, or choose another directory."
        raise UsageError(message, location=str(path.parent), hint=hint)


def _list_changes(found: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """Returns what differs between two runs, in words."""
    changed = ["other lists"] if found["lists"] != settings["lists"] else []
    names = sorted({**found["options"], **settings["options"]})
    return changed + [
        f"another --{name.replace('_', '-')} ({found['options'].get(name)})"
        for name in names
        if found["options"].get(name) != settings["options"].get(name)
    ]
