"""Lists the files of directories, archives and buckets, in bounded memory."""

import contextlib
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from features.inputs.archives import close_archives, escape_bytes, listed_name, open_archive
from features.inputs.file_reference import FileReference, ListedFile
from features.io.objects import classify_uri, list_objects
from features.io.open_files import stat_file
from features.io.uris import is_uri
from schemas.errors import CaptError, UsageError

_HINT = "Choose a directory, a .zip or a .tar."
_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")

_log = logging.getLogger("capt.inputs")


def list_files(root: str) -> Iterator[ListedFile]:
    """Yields the files in a directory, zip, tar or bucket, without hidden files and in no particular order.

    Raises:
        UsageError: `root` is missing, is another kind of file, or is a corrupt archive.
        CaptError: A directory, archive or bucket cannot be read.
    """
    if is_uri(root):
        yield from _list_uri(root)
        return
    path = Path(root).absolute()
    location = os.fspath(path)
    if escape_bytes(location) != location:
        raise UsageError("the path is not UTF-8", location=escape_bytes(location), hint="Rename the file or directory.")
    if not root or not path.exists():
        raise UsageError("no such directory or archive", location=root or "--images", hint=_HINT)
    yield from _list_directory(location) if path.is_dir() else _list_archive(location)


def is_collection(name: str) -> bool:
    """Returns whether a name means several files: a directory, an archive by its suffix, or a URI without suffix."""
    if name.lower().endswith(_ARCHIVES):
        return True
    return not PurePosixPath(name).suffix if is_uri(name) else Path(name).is_dir()


def _list_uri(uri: str) -> Iterator[ListedFile]:
    kind = classify_uri(uri)
    if kind is None:
        raise UsageError("the bucket is missing, or contains nothing of this name", location=uri, hint=_HINT)
    if kind == "file":
        yield from _list_archive(uri)
        return
    for path, info in list_objects(uri):
        if name := listed_name(path):
            stamp = f"{info.modified_ns}:{info.size}:{info.tag}"
            yield ListedFile(name, FileReference(f"{uri.rstrip('/')}/{path}"), info.size, stamp, info.modified_ns)


def _list_archive(location: str) -> Iterator[ListedFile]:
    try:
        state = stat_file(location)
        close_archives()
        archive = open_archive(location)
    except OSError as error:
        raise CaptError(f"the archive cannot be read: {error.strerror or error}", location=location) from error
    for member in archive.list_members(state):
        reference = FileReference(location, member.member)
        yield ListedFile(member.name, reference, member.size, member.stamp, state.modified_ns, member.has_known_name)


def _list_directory(root: str) -> Iterator[ListedFile]:
    pending = [root]
    while pending:
        for entry in _scan(pending.pop()):
            if entry.name.startswith("."):
                continue
            is_directory = False  # after an error, too: the entry counts as a file, which fails when it is read
            with contextlib.suppress(OSError):
                is_directory = entry.is_dir(follow_symlinks=False)
            if is_directory:
                pending.append(entry.path)
            elif file := _stat_entry(entry, len(root) + 1):
                yield file


def _scan(directory: str) -> "Iterator[os.DirEntry[str]]":
    try:
        with os.scandir(directory) as entries:
            yield from entries
    except OSError as error:
        raise CaptError(f"the directory cannot be read: {error.strerror}", location=escape_bytes(directory)) from error


def _stat_entry(entry: "os.DirEntry[str]", prefix: int) -> ListedFile | None:
    """Returns the listed file; None if the entry is not a file. A broken link is listed and then fails as missing."""
    path = escape_bytes(entry.path)
    name = path[prefix:]
    try:
        status = entry.stat()
    except OSError:
        return ListedFile(name, FileReference(path), 0, "", 0)
    if stat.S_ISDIR(status.st_mode):
        _log.warning("%s is a link to a directory. It is not followed.", path)
    if not stat.S_ISREG(status.st_mode):
        return None
    stamp = f"{status.st_mtime_ns}:{status.st_ctime_ns}:{status.st_ino}"
    modified_ns = max(status.st_mtime_ns, status.st_ctime_ns)
    return ListedFile(name, FileReference(path), status.st_size, stamp, modified_ns, path == entry.path)
