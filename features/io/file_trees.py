"""Lists, checks, syncs and deletes whole directories, local or in a bucket."""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from features.io.atomic_files import fsync, hash_file, working_path
from features.io.cache import local_cache
from features.io.object_path import ObjectPath
from schemas.manifests import FileEntry


def files_below(root: Path) -> Iterator[Path]:
    """Yields every file below a directory; links count as files and are not followed."""
    if isinstance(root, ObjectPath):
        yield from (path for path, _ in root.list_tree())
        return
    for directory, subdirectories, names in os.walk(root):
        links = [name for name in subdirectories if (Path(directory) / name).is_symlink()]
        yield from (Path(directory) / name for name in sorted([*names, *links]))


def count_bytes(root: Path) -> int:
    """Returns the total size of the files below a directory."""
    return sum(path.stat().st_size for path in files_below(root))


def newest_change(path: Path) -> float:
    """Returns the time of the last change of a file, or in a directory: seconds since 1970; 0 if it is missing."""
    if isinstance(path, ObjectPath):
        infos = [info for _, info in path.list_tree()] or [info for info in (path.object_info(),) if info]
        return max((info.modified_ns / 1e9 for info in infos), default=0.0)
    newest = 0.0
    for entry in (path, *(path.rglob("*") if path.is_dir() else ())):
        with contextlib.suppress(FileNotFoundError):
            newest = max(newest, entry.lstat().st_mtime)
    return newest


def remove_tree(path: Path) -> None:
    """Deletes a directory with its contents, if it exists; with one in a bucket, also its local working files."""
    if isinstance(path, ObjectPath):
        path.remove_tree()
    shutil.rmtree(working_path(path), ignore_errors=True)


def sync_directories(paths: Iterable[Path], root: Path) -> None:
    """Syncs the existing ones of some local directories, and their parents within `root`."""
    if isinstance(root, ObjectPath):
        return
    for directory in sorted({directory for path in paths for directory in (path, *path.parents)}):
        if directory.is_relative_to(root) and directory.is_dir():
            fsync(directory)


class FileChecker:
    """Compares the files below a directory with their manifest entries; lists a bucket's directory only once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._infos = dict(root.list_tree()) if isinstance(root, ObjectPath) else None

    def is_intact(self, entry: FileEntry, *, check_hash: bool) -> bool:
        """Returns whether a file exists with the size, and if `check_hash` also the SHA-256, of its entry."""
        path = self._root / entry.path
        try:
            if self._infos is not None and isinstance(path, ObjectPath):
                info = self._infos.get(path)
                is_same_size = info is not None and info.size == entry.bytes
                return is_same_size and (not check_hash or local_cache().hash_object(path, info) == entry.sha256)
            return path.stat().st_size == entry.bytes and (not check_hash or hash_file(path) == entry.sha256)
        except OSError:
            return False
