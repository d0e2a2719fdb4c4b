"""Directories: the files below one, in bounded memory."""

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from features.io.uris import printable
from features.references.reference import ListedFile, Reference
from schemas.errors import CaptError

_log = logging.getLogger("capt.references")


def list_directory(root: Path) -> Iterator[ListedFile]:
    """The files below an absolute directory, hidden ones left out; CaptError where one cannot be read."""
    prefix = len(os.fspath(root)) + 1
    waiting = [os.fspath(root)]
    while waiting:
        for entry in _scan(waiting.pop()):
            if entry.name.startswith("."):
                continue
            if _is_directory(entry):
                waiting.append(entry.path)
            elif found := _found_file(entry, prefix):
                yield found


def _scan(directory: str) -> "Iterator[os.DirEntry[str]]":
    try:
        with os.scandir(directory) as entries:
            yield from entries
    except OSError as error:
        raise CaptError(f"the directory cannot be read: {error.strerror}", location=printable(directory)) from error


def _is_directory(entry: "os.DirEntry[str]") -> bool:
    """Whether it is a directory; what cannot be told is a file, which fails when it is read."""
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _found_file(entry: "os.DirEntry[str]", prefix: int) -> ListedFile | None:
    """The file, also where a link leads to nothing, so that it fails as missing; None for what is no file."""
    path = printable(entry.path)
    name = path[prefix:]
    try:
        status = entry.stat()
    except OSError:
        return ListedFile(name, Reference(path), 0, "", 0)
    if stat.S_ISDIR(status.st_mode):
        _log.warning("%s: a link to a directory is not followed", path)
    if not stat.S_ISREG(status.st_mode):
        return None
    stamp = f"{status.st_mtime_ns}:{status.st_ctime_ns}:{status.st_ino}"
    return ListedFile(name, Reference(path), status.st_size, stamp, max(status.st_mtime_ns, status.st_ctime_ns))
