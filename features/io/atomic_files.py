"""Writes files and directories atomically: to a temporary path, which is then renamed.

For a file in a bucket, the temporary file is on this machine, and its upload makes it visible.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from features.io.cache import download_object, local_cache
from features.io.object_path import ObjectPath
from features.io.temporary_names import TEMP_PREFIX
from schemas.errors import REPAIR_HINT, CorruptFileError, UsageError
from schemas.manifests import FileEntry
from schemas.table_config import SHORT_FINGERPRINT


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write to; afterwards its file replaces `path` atomically and durably.

    If the block raises, `path` is unchanged and the temporary file is deleted.
    """
    make_directory(path.parent)
    with _temporary_file(path) as temporary:
        yield temporary
        replace_atomically(temporary, path)


@contextlib.contextmanager
def _temporary_file(path: Path) -> Iterator[Path]:
    temporary = temporary_path(path)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def temporary_path(path: Path) -> Path:
    """Returns an unused path for a temporary file beside `path`, or beside its working path if it is in a bucket."""
    local = working_path(path)
    if local is not path:
        local.parent.mkdir(parents=True, exist_ok=True)
    return local.with_name(f"{TEMP_PREFIX}{uuid.uuid4().hex}")


def working_path(path: Path) -> Path:
    """Returns the local path at which this machine works on a file: `path` itself, or one that belongs to the URI."""
    return path.working_path if isinstance(path, ObjectPath) else path


def ensure_local(path: Path, sha256: str, *, check: bool = False) -> Path:
    """Returns a local path of a file: `path` itself, verified only if `check` is set, or a verified copy of the object.

    Raises:
        CorruptFileError: The verified file is missing or differs from its SHA-256.
    """
    try:
        if isinstance(path, ObjectPath):
            return local_cache().fetch(path, sha256)
        actual = hash_file(path) if check else sha256
    except FileNotFoundError:
        hint = "Run the same `capt prepare` command again."
        raise CorruptFileError("a committed file is missing", location=str(path), hint=hint) from None
    if actual != sha256:
        message = f"corrupt: expected SHA-256 {sha256}, got {actual}"
        raise CorruptFileError(message, location=str(path), hint=REPAIR_HINT)
    return path


@contextlib.contextmanager
def hold_local_copy(path: Path) -> Iterator[Path]:
    """Yields a local path of a file's current contents: `path` itself, or a copy that is deleted afterwards.

    Raises:
        FileNotFoundError: The object does not exist.
    """
    if not isinstance(path, ObjectPath):
        yield path
        return
    with _temporary_file(path) as temporary:
        download_object(path, path.require_info(), temporary)
        yield temporary


def replace_atomically(temporary: Path, path: Path) -> None:
    """Makes a temporary file durable and visible as `path`, and replaces any former file."""
    if isinstance(path, ObjectPath):
        sha256 = hash_file(temporary)
        path.upload(temporary)
        local_cache().add_uploaded(temporary, path, sha256)
        temporary.unlink(missing_ok=True)
        return
    fsync(temporary)
    temporary.replace(path)
    fsync(path.parent)


def replace_tree_atomically(temporary: Path, path: Path) -> None:
    """Makes a temporary directory with its contents durable and visible as `path`, which must not exist."""
    for directory, _, names in os.walk(temporary):
        for name in names:
            fsync(Path(directory) / name)
        fsync(Path(directory))
    temporary.rename(path)
    fsync(path.parent)


def publish(path: Path) -> None:
    """Makes the finished file at the working path of `path` durable: syncs it, or uploads it to the bucket."""
    if isinstance(path, ObjectPath):
        path.upload(path.working_path)
    else:
        fsync(path)


def write_directory(
    path: Path, description: str, is_same: Callable[[Path], bool], write_into: Callable[[Path], None]
) -> None:
    """Writes a local directory atomically, unless it already contains the same data.

    Args:
        path: The directory.
        description: Name of the data in the error.
        is_same: Returns whether a directory contains the data. OSError, ValueError, KeyError and TypeError mean no.
        write_into: Writes the data into a new directory.

    Raises:
        UsageError: The directory exists, is not empty, and contains something else.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            if is_same(path):
                return
        hint = "Choose a directory that does not exist yet."
        raise UsageError(f"the directory has other contents than {description}", location=str(path), hint=hint)
    make_directory(path.parent)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as parent:
        temporary = Path(parent) / path.name
        temporary.mkdir()
        write_into(temporary)
        temporary.rename(path)


def make_directory(path: Path) -> None:
    """Creates a directory and its missing parents, and syncs each entry; FileExistsError if a file has that name."""
    if isinstance(path, ObjectPath) or path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(exist_ok=True)
    fsync(path.parent)


def write(path: Path, data: bytes) -> None:
    """Writes a file atomically and durably."""
    if isinstance(path, ObjectPath):
        path.put(data)
        return
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def put_if_absent(path: Path, data: bytes) -> bool:
    """Writes a file unless one exists; returns whether this call wrote it. Exactly one of several writers succeeds."""
    if isinstance(path, ObjectPath):
        return path.put_if_absent(data)
    make_directory(path.parent)
    with _temporary_file(path) as temporary:
        temporary.write_bytes(data)
        fsync(temporary)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
    fsync(path.parent)
    return True


def fsync(path: Path) -> None:
    """Forces a file's bytes, or a directory's entries, to the disk; objects are durable already."""
    if isinstance(path, ObjectPath):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def touch(path: Path, data: bytes) -> None:
    """Renews the time of a file with these bytes, also on a full disk; writes the file if it is missing."""
    if isinstance(path, ObjectPath):
        path.put(data)
        return
    try:
        os.utime(path)
    except FileNotFoundError:
        write(path, data)


def measure_free_space(path: Path) -> int | None:
    """Returns the number of free bytes on the disk of `path`; None for a bucket, which has no limit."""
    return None if isinstance(path, ObjectPath) else shutil.disk_usage(path).free


def hash_file(path: Path) -> str:
    """Returns the SHA-256 of a file, 64 hexadecimal digits; for an unchanged object, the recorded one."""
    if isinstance(path, ObjectPath):
        return local_cache().hash_object(path)
    with path.open("rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_file(path: Path, root: Path) -> FileEntry:
    """Returns the manifest entry of a file below `root`."""
    return FileEntry(path=path.relative_to(root).as_posix(), bytes=path.stat().st_size, sha256=hash_file(path))


def write_under_digest(root: Path, stem: str, write: Callable[[Path], object], directory: str = "") -> FileEntry:
    """Writes a Parquet file to `<root>/<directory>/<digest of its content>/<stem>.parquet`."""
    make_directory(root / directory)
    temporary = temporary_path(root / stem)
    try:
        write(temporary)
        path = root / directory / hash_file(temporary)[:SHORT_FINGERPRINT] / f"{stem}.parquet"
        make_directory(path.parent)
        replace_atomically(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return describe_file(path, root)
