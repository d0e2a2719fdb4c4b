"""Keeps verified local copies of objects, up to the total size `CAPT_CACHE_SIZE`, such as `200GB`.

The cache evicts the least recently used files first, and never a file that a living process uses (`CacheUsage`). A file
appears under its name only when it is complete, so an interrupted process leaves complete files.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from threading import Lock

from features.io.bucket import ObjectInfo
from features.io.cache_paths import cache_path, cache_root, replace_file
from features.io.object_path import ObjectPath
from features.io.temporary_names import TEMP_PREFIX
from schemas.errors import REPAIR_HINT, CaptError, CorruptFileError, UsageError
from schemas.strict_json import parse_json

DEFAULT_SIZE = "100GB"

_DOWNLOADS = 4
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}

_opening = Lock()


def local_cache() -> "LocalCache":
    """Returns the process's cache. Environment variables set its directory and size."""
    with _opening:  # so that threads do not open two caches, which would download a file twice
        return _open_cache(cache_root(), _parse_size(os.environ.get("CAPT_CACHE_SIZE") or DEFAULT_SIZE), os.getpid())


@lru_cache(maxsize=8)
def _open_cache(root: Path, max_bytes: int, process: int) -> "LocalCache":
    return LocalCache(root, max_bytes)


def fetch_files(wanted: Iterable[tuple[Path, str]], advance: Callable[[int], None]) -> None:
    """Downloads the files in a bucket, by path and SHA-256, in parallel; calls `advance` with the size of each."""
    cache = local_cache()
    objects = [(path, sha256) for path, sha256 in wanted if isinstance(path, ObjectPath)]
    with ThreadPoolExecutor(_DOWNLOADS, thread_name_prefix="fetch") as pool:
        try:
            for local in pool.map(lambda item: cache.fetch(*item), objects):
                advance(local.stat().st_size)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


class LocalCache:
    """Local copies of objects in a directory, at most `max_bytes` in total."""

    def __init__(self, root: Path, max_bytes: int) -> None:
        self._root = root
        self._files = root / "files"
        self._max_bytes = max_bytes
        self._lock = Lock()
        self._file_locks: dict[Path, Lock] = {}
        self._verified: set[tuple[Path, str]] = set()
        self._usage = _open_usage(root / "in-use", os.getpid())

    def fetch(self, path: ObjectPath, sha256: str) -> Path:
        """Returns a local copy of an object; it is not evicted while this process lives.

        A copy is verified once per process. A corrupt copy is downloaded again.

        Raises:
            FileNotFoundError: Neither a copy nor the object exists.
            CorruptFileError: The object differs from its SHA-256.
            CaptError: The service cannot be reached, or the cache is too small.
        """
        local = cache_path(str(path), "files")
        with self._lock:
            file_lock = self._file_locks.setdefault(local, Lock())
        with file_lock:
            self._usage.hold(local)
            if (local, sha256) not in self._verified or not local.exists():
                if _hash_if_present(local) != sha256:
                    self._download(path, local, sha256)
                self._verified.add((local, sha256))
            os.utime(local)
        return local

    def add_uploaded(self, temporary: Path, path: ObjectPath, sha256: str) -> None:
        """Moves a local file that has just been uploaded into the cache, if there is room for it."""
        local = cache_path(str(path), "files")
        local.parent.mkdir(parents=True, exist_ok=True)
        with self._make_room(temporary.stat().st_size) as has_room:
            if has_room:
                temporary.replace(local)
        info = path.object_info()
        if info:
            _record_hash(path, info, sha256)

    def hash_object(self, path: ObjectPath, info: ObjectInfo | None = None) -> str:
        """Returns the SHA-256 of an object: the recorded one if its tag is unchanged, otherwise by reading it.

        `info` is its entry in a listing, None to request it. Raises FileNotFoundError if the object does not exist.
        """
        info = info or path.require_info()
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            record = parse_json(cache_path(str(path), "hashes").read_bytes())
            if record["tag"] == info.tag:
                return str(record["sha256"])
        sha256 = path.hash_object(info)
        _record_hash(path, info, sha256)
        return sha256

    def _download(self, path: ObjectPath, local: Path, sha256: str) -> None:
        local.unlink(missing_ok=True)
        info = path.require_info()
        with self._reserve(local, info.size) as temporary:
            actual = path.download(info, temporary)
            if actual != sha256:
                message = f"corrupt: expected SHA-256 {sha256}, got {actual}"
                raise CorruptFileError(message, location=str(path), hint=REPAIR_HINT)
            temporary.replace(local)
        # The hash of a download that was corrupted on its way is never recorded.
        _record_hash(path, info, sha256)

    @contextlib.contextmanager
    def _reserve(self, local: Path, size: int) -> Iterator[Path]:
        """Creates a temporary file beside `local` with its final size, and locks it while the block writes it."""
        local.parent.mkdir(parents=True, exist_ok=True)
        temporary = local.with_name(f"{TEMP_PREFIX}{uuid.uuid4().hex}")
        with self._make_room(size) as has_room:
            if not has_room:
                limit = f"the local cache is limited to {self._max_bytes:,} bytes"
                message = f"{limit}, and the files in use leave no room for {size:,} more"
                hint = "Increase CAPT_CACHE_SIZE, for example to 500GB."
                raise CaptError(message, location=str(self._root), hint=hint)
            descriptor = os.open(temporary, os.O_CREAT | os.O_RDWR)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.truncate(descriptor, size)
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)
            os.close(descriptor)

    @contextlib.contextmanager
    def _make_room(self, size: int) -> Iterator[bool]:
        """Evicts files and yields whether there is room for `size` bytes; other processes wait for the block."""
        self._files.mkdir(parents=True, exist_ok=True)
        with self._lock, (self._root / "room.lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self._evict_until(size)

    def _evict_until(self, size: int) -> bool:
        # Abandoned temporary files go first, then the least recently used files.
        files = sorted(_list_files(self._files))
        total = sum(file_size for _, _, file_size, _ in files) + size
        for is_finished, _, file_size, local in files:
            if total <= self._max_bytes:
                break
            if self._usage.delete(local) if is_finished else _remove_abandoned(local):
                total -= file_size
        return total <= self._max_bytes


class CacheUsage:
    """The cached files that living processes use.

    Each cached file has a byte in the file `path`, and each process locks the bytes of the files that it uses. A lock
    ends with its process.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Closing any descriptor of this file would release all locks of the process, so one stays open.
        self._descriptor = os.open(path, os.O_CREAT | os.O_RDWR)
        self._held: set[Path] = set()
        self._lock = Lock()

    def hold(self, local: Path) -> None:
        """Protects a file while this process lives; waits for a process that is deleting it."""
        with self._lock:
            if local not in self._held:
                fcntl.lockf(self._descriptor, fcntl.LOCK_SH, 1, _lock_position(local))
                self._held.add(local)

    def delete(self, local: Path) -> bool:
        """Deletes a file unless a living process uses it; returns whether it was deleted."""
        with self._lock:
            if local in self._held:
                return False
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _lock_position(local))
            except OSError:
                return False
            local.unlink(missing_ok=True)
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, _lock_position(local))
            return True


@lru_cache(maxsize=64)
def _open_usage(path: Path, process: int) -> CacheUsage:
    """Opens a `CacheUsage` per process, because its locks do not survive a fork."""
    return CacheUsage(path)


def download_object(path: ObjectPath, info: ObjectInfo, target: Path) -> str:
    """Writes an object, of the size in `info`, to a local file; records and returns its SHA-256."""
    sha256 = path.download(info, target)
    _record_hash(path, info, sha256)
    return sha256


def _record_hash(path: ObjectPath, info: ObjectInfo, sha256: str) -> None:
    record = json.dumps({"tag": info.tag, "sha256": sha256}).encode()
    replace_file(cache_path(str(path), "hashes"), record)


def _list_files(root: Path) -> Iterator[tuple[bool, float, int, Path]]:
    """Yields whether a file is finished, the time of its last use, its size and its path."""
    for directory, _, names in os.walk(root):
        for name in names:
            path = Path(directory) / name
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                yield not name.startswith(TEMP_PREFIX), status.st_mtime, status.st_size, path


def _remove_abandoned(temporary: Path) -> bool:
    """Deletes a temporary file unless its writer is running; returns whether it was deleted."""
    try:
        descriptor = os.open(temporary, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        temporary.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _lock_position(local: Path) -> int:
    return int.from_bytes(hashlib.sha256(str(local).encode()).digest()[:7], "big")


def _hash_if_present(path: Path) -> str:
    try:
        with path.open("rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ""


def _parse_size(text: str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]?B?)", text.strip().upper())
    if not match or match[2] not in _UNITS:
        hint = "Use a value such as 200GB, or a number of bytes."
        raise UsageError(f"{text!r} is not a size", location="CAPT_CACHE_SIZE", hint=hint)
    return int(float(match[1]) * _UNITS[match[2]])
