"""Writing files so that they are whole or absent: written aside, synced, then made visible in one step."""

import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from schemas.manifests import FileEntry

ASIDE = ".aside-"
_CHUNK = 1 << 20


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; on leaving, its file is synced and takes the place of `path` atomically.

    Where the block raises, `path` is as it was and nothing is left beside it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = aside_of(path)
    try:
        yield aside
        publish(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def aside_of(path: Path) -> Path:
    """A name beside `path` that no other writer uses and no reader looks at."""
    return path.with_name(f"{ASIDE}{uuid.uuid4().hex}")


def publish(aside: Path, path: Path) -> None:
    """Make the file at `aside` durable and visible as `path`, replacing what was there."""
    sync(aside)
    aside.replace(path)
    sync(path.parent)


def write(path: Path, data: bytes) -> None:
    """Write `path` whole or not at all."""
    with written_aside(path) as aside:
        aside.write_bytes(data)


def put_if_absent(path: Path, data: bytes) -> bool:
    """Write `path` only where nothing is; whether this call wrote it. Of two racing writers exactly one does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = aside_of(path)
    try:
        aside.write_bytes(data)
        sync(aside)
        os.link(aside, path)
    except FileExistsError:
        return False
    finally:
        aside.unlink(missing_ok=True)
    sync(path.parent)
    return True


def sync(path: Path) -> None:
    """Force a file's bytes, or a directory's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits, reading a mebibyte at a time."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def entry_of(path: Path, root: Path) -> FileEntry:
    """The manifest entry of a file under `root`."""
    return FileEntry(path=path.relative_to(root).as_posix(), bytes=path.stat().st_size, sha256=sha256_of(path))
