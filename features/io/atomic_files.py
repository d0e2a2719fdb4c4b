"""Writing files so that they are whole or absent: written aside, synced, then made visible in one step.

In a bucket (`features.remote`) a file is written aside on this machine, and an upload makes it visible.
"""

import contextlib
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from features.io.cache import local_cache
from features.io.locations import ObjectPath
from schemas.errors import CorruptFileError
from schemas.manifests import FileEntry

TEMP_PREFIX = ".aside-"
_CHUNK = 1 << 20


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; on leaving, its file is synced and takes the place of `path` atomically.

    Where the block raises, `path` is as it was and nothing is left beside it.
    """
    make_directory(path.parent)
    temporary = temporary_path(path)
    try:
        yield temporary
        replace_atomically(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_path(path: Path) -> Path:
    """A name beside `path`, or on the local side of it, that no other writer uses and no reader looks at."""
    here = working_path(path)
    if here is not path:
        here.parent.mkdir(parents=True, exist_ok=True)
    return here.with_name(f"{TEMP_PREFIX}{uuid.uuid4().hex}")


def working_path(path: Path) -> Path:
    """Where this machine works on what is at `path`: there, or in a directory of its own for what is in a bucket."""
    return path.working_path if isinstance(path, ObjectPath) else path


def ensure_local(path: Path, sha256: str) -> Path:
    """Where a file of that content can be opened by name: `path` itself, or a checked copy of an object.

    Raises:
        CorruptFileError: there is no such object, or it has other bytes.
    """
    if not isinstance(path, ObjectPath):
        return path
    try:
        return local_cache().fetch(path, sha256)
    except FileNotFoundError:
        raise CorruptFileError(
            "a committed file is missing", location=str(path), hint="run the same prepare command again"
        ) from None


@contextlib.contextmanager
def hold_local_copy(path: Path) -> Iterator[Path]:
    """Where a file can be opened by name as it is now: `path` itself, or a copy of an object for as long as the block.

    Raises:
        FileNotFoundError: it is not there.
    """
    if not isinstance(path, ObjectPath):
        yield path
        return
    temporary = temporary_path(path)
    try:
        local_cache().read_again(path, temporary)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def replace_atomically(temporary: Path, path: Path) -> None:
    """Make the file at `aside` durable and visible as `path`, replacing what was there."""
    if isinstance(path, ObjectPath):
        sha256 = hash_file(temporary)
        path.upload(temporary)
        local_cache().keep(temporary, path, sha256)
        temporary.unlink(missing_ok=True)
        return
    fsync(temporary)
    temporary.replace(path)
    fsync(path.parent)


def replace_tree_atomically(temporary: Path, path: Path) -> None:
    """Make the directory at `aside`, with all that is in it, durable and visible as `path`, where nothing is."""
    for directory, _, names in os.walk(temporary):
        for name in names:
            fsync(Path(directory) / name)
        fsync(Path(directory))
    temporary.rename(path)
    fsync(path.parent)


def make_directory(path: Path) -> None:
    """Make a directory and the missing ones above it, so that a power loss keeps them: each one's entry is synced.

    Raises:
        FileExistsError: A file has that name.
    """
    if isinstance(path, ObjectPath) or path.is_dir():
        return
    make_directory(path.parent)
    path.mkdir(exist_ok=True)
    fsync(path.parent)


def write(path: Path, data: bytes) -> None:
    """Write `path` whole or not at all."""
    if isinstance(path, ObjectPath):
        path.put(data)
        return
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def put_if_absent(path: Path, data: bytes) -> bool:
    """Write `path` only where nothing is; whether this call wrote it. Of two racing writers exactly one does."""
    if isinstance(path, ObjectPath):
        return path.put_if_absent(data)
    make_directory(path.parent)
    temporary = temporary_path(path)
    try:
        temporary.write_bytes(data)
        fsync(temporary)
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    fsync(path.parent)
    return True


def fsync(path: Path) -> None:
    """Force a file's bytes, or a directory's entries, to the disk; what is in a bucket is durable already."""
    if isinstance(path, ObjectPath):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def touch(path: Path, data: bytes) -> None:
    """Make a file of these bytes as young as can be; on a disk that is full too."""
    if isinstance(path, ObjectPath):
        path.put(data)
        return
    try:
        os.utime(path)
    except FileNotFoundError:
        write(path, data)


def remove_tree(path: Path) -> None:
    """Delete a directory with all that is in it, as far as it is there."""
    if isinstance(path, ObjectPath):
        path.remove_tree()
    shutil.rmtree(working_path(path), ignore_errors=True)


def measure_free_space(path: Path) -> int | None:
    """Bytes that are free where `path` is; None for a bucket, which has no bound."""
    return None if isinstance(path, ObjectPath) else shutil.disk_usage(path).free


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits, reading a mebibyte at a time.

    Of an object that has been read before and has its tag still, it is remembered.
    """
    if isinstance(path, ObjectPath):
        return local_cache().sha256_of(path)
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def describe_file(path: Path, root: Path) -> FileEntry:
    """The manifest entry of a file under `root`."""
    return FileEntry(path=path.relative_to(root).as_posix(), bytes=path.stat().st_size, sha256=hash_file(path))
