"""Walking: everything that a directory, an archive or a bucket holds."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from features.io.bucket_listing import list_objects, stat_object
from features.io.open_files import stat_file
from features.io.uris import is_uri, listed_name, printable
from features.references.archives import open_archive
from features.references.directories import list_directory
from features.references.reference import ListedFile, Reference
from schemas.errors import CaptError, UsageError

_NOTHING = "no such directory or archive"
_MEND = "name a directory, a .zip or a .tar"
_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")


def list_files(root: str) -> Iterator[ListedFile]:
    """Everything in a directory, a zip or a tar, local or in a bucket, hidden files left out, in no particular order.

    Args:
        root: str. Path, or `s3://` or `gs://` address.

    Raises:
        UsageError: `root` is none of these, or an archive that is damaged.
        CaptError: it cannot be read or reached.
    """
    if is_uri(root):
        yield from _walk_address(root)
        return
    path = Path(root).absolute()
    location = os.fspath(path)
    if printable(location) != location:
        raise UsageError("the path is not UTF-8", location=printable(location), hint="rename it")
    if not root or not path.exists():
        raise UsageError(_NOTHING, location=root or "--images", hint=_MEND)
    if path.is_dir():
        yield from list_directory(path)
    else:
        yield from _walk_archive(location)


def is_collection(name: str) -> bool:
    """Whether what a user names is to be walked: a directory, what is called an archive, an address without suffix."""
    if name.lower().endswith(_ARCHIVES):
        return True
    return not PurePosixPath(name).suffix if is_uri(name) else Path(name).is_dir()


def _walk_address(address: str) -> Iterator[ListedFile]:
    kind = stat_object(address).kind
    if kind is None:
        raise UsageError("no such bucket, or nothing in it of this name", location=address, hint=_MEND)
    if kind == "file":
        yield from _walk_archive(address)
        return
    for seen in list_objects(address):
        if name := listed_name(seen.name):
            stamp = f"{seen.modified_ns}:{seen.size}"
            yield ListedFile(name, Reference(seen.location), seen.size, stamp, seen.modified_ns)


def _walk_archive(location: str) -> Iterator[ListedFile]:
    try:
        state = stat_file(location)
        archive = open_archive(location, anew=True)
    except OSError as error:
        raise CaptError(f"the archive cannot be read: {error.strerror or error}", location=location) from error
    for entry in archive.entries(state):
        yield ListedFile(entry.name, Reference(location, entry.member), entry.size, entry.stamp, state.modified_ns)
