"""The mirror: files of stores at addresses as they are needed here, checked, and within a size.

`CAPT_CACHE_SIZE`, such as `200GB`, says how much it holds at most; 100 GB where the environment does not say. What was
used longest ago leaves first; what a living process has been given stays (`features.io.cache_usage`). A file is there
whole, under the name that it has in the store, or not at all, so that who was killed midway goes on with what is there.
"""

import contextlib
import errno
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

from features.io.bucket import Listed
from features.io.cache_paths import cache_path, cache_root
from features.io.cache_usage import cache_usage
from features.io.locations import ObjectPath
from features.io.object_transfers import digest_of, download
from schemas.errors import CaptError, CorruptFileError, UsageError
from schemas.strict_json import parse_json

AT_ONCE = 4
DEFAULT_SIZE = "100GB"

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_ASIDE = ".aside-"


def local_cache() -> "LocalCache":
    """The mirror that the environment names, one a process."""
    return _mirror(cache_root(), _size_asked(), os.getpid())


@lru_cache(maxsize=8)
def _mirror(root: Path, limit: int, process: int) -> "LocalCache":
    return LocalCache(root, limit)


class LocalCache:
    """Local copies of objects.

    Args:
        root: Path. Directory of the machine's local sides.
        limit: int. Bytes at most.
    """

    def __init__(self, root: Path, limit: int) -> None:
        self._root = root
        self._files = root / "mirror"
        self._limit = limit
        self._lock = Lock()
        self._fetching: dict[Path, Lock] = {}
        self._sound: set[tuple[Path, str]] = set()
        self._in_use = cache_usage(root / "in-use")

    def fetch(self, path: ObjectPath, sha256: str) -> Path:
        """The local copy of an object of that content, which stays as long as this process lives.

        The copy is checked once a process; one that is damaged is fetched again.

        Raises:
            FileNotFoundError: neither a copy nor an object is there.
            CorruptFileError: the object has other bytes.
            CaptError: the service cannot be reached, or the mirror is too small.
        """
        local = cache_path(str(path), "mirror")
        with self._alone(local):
            self._in_use.hold(local)
            if (local, sha256) not in self._sound or not local.exists():
                if _digest(local) != sha256:
                    self._download(path, local, sha256)
                self._sound.add((local, sha256))
            os.utime(local)
        return local

    def fetch_all(self, wanted: Iterable[tuple[ObjectPath, str]], advance: Callable[[int], None]) -> None:
        """Fetch several objects, a few at a time; `advance` is told the bytes of each that is here."""
        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="mirror") as pool:
            try:
                for local in pool.map(lambda one: self.fetch(*one), wanted):
                    advance(local.stat().st_size)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def keep(self, temporary: Path, path: ObjectPath, sha256: str) -> None:
        """Take over a local file that has just been uploaded, where there is room for it."""
        local = cache_path(str(path), "mirror")
        local.parent.mkdir(parents=True, exist_ok=True)
        with self._making_room(temporary.stat().st_size) as has_room:
            if has_room:
                temporary.replace(local)
        self.note(path, sha256)

    def sha256_of(self, path: ObjectPath) -> str:
        """SHA-256 of an object: noted for the state that its tag tells, or read.

        Raises:
            FileNotFoundError: there is no such object.
        """
        return self.sha256_as_listed(path, _seen(path))

    def sha256_as_listed(self, path: ObjectPath, listed: Listed) -> str:
        """As `sha256_of`, of an object that a listing told of."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            known = parse_json(cache_path(str(path), "known").read_bytes())
            if known["tag"] == listed.tag:
                return str(known["sha256"])
        sha256 = digest_of(str(path), listed.size)
        self._note(path, listed.tag, sha256)
        return sha256

    def read_again(self, path: ObjectPath, target: Path) -> None:
        """Write the bytes that an object has now to a local file, whatever is known of it.

        Raises:
            FileNotFoundError: there is no such object.
        """
        listed = _seen(path)
        self._note(path, listed.tag, download(str(path), listed.size, target))

    def note(self, path: ObjectPath, sha256: str) -> None:
        """Note the SHA-256 of an object as it is now."""
        listed = path.look()
        if listed:
            self._note(path, listed.tag, sha256)

    def _note(self, path: ObjectPath, tag: str, sha256: str) -> None:
        known = cache_path(str(path), "known")
        known.parent.mkdir(parents=True, exist_ok=True)
        temporary = known.with_name(f"{_ASIDE}{uuid.uuid4().hex}")
        temporary.write_text(json.dumps({"tag": tag, "sha256": sha256}), encoding="ascii")
        temporary.replace(known)

    # === Fetching ===

    @contextlib.contextmanager
    def _alone(self, local: Path) -> Iterator[None]:
        """Of several threads that want one file, one fetches it."""
        with self._lock:
            lock = self._fetching.setdefault(local, Lock())
        with lock:
            yield

    def _download(self, path: ObjectPath, local: Path, sha256: str) -> None:
        local.unlink(missing_ok=True)
        listed = _seen(path)
        with self._reserved(local, listed.size) as temporary:
            got = download(str(path), listed.size, temporary)
            if got != sha256:
                raise CorruptFileError(f"damaged: expected SHA-256 {sha256}, got {got}", location=str(path))
            temporary.replace(local)
            self._note(path, listed.tag, sha256)

    @contextlib.contextmanager
    def _reserved(self, local: Path, size: int) -> Iterator[Path]:
        """A file beside `local` that counts with `size` from now on, locked while it is being written."""
        local.parent.mkdir(parents=True, exist_ok=True)
        temporary = local.with_name(f"{_ASIDE}{uuid.uuid4().hex}")
        with self._making_room(size) as has_room:
            if not has_room:
                raise CaptError(
                    f"the mirror may hold {self._limit:,} bytes, and what is in use leaves no room for {size:,} more",
                    location=str(self._root),
                    hint="set CAPT_CACHE_SIZE to more, such as 500GB",
                )
            held = os.open(temporary, os.O_CREAT | os.O_RDWR)
            fcntl.flock(held, fcntl.LOCK_EX)
            os.truncate(held, size)
        try:
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)
            os.close(held)

    # === Room ===

    @contextlib.contextmanager
    def _making_room(self, size: int) -> Iterator[bool]:
        """Whether there is room for so much, once what can leave has left; no other process takes it in the block."""
        self._files.mkdir(parents=True, exist_ok=True)
        with self._lock, (self._root / "room.lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self._make_room(size)

    def _make_room(self, size: int) -> bool:
        # What was left half-written goes first, then what was used longest ago.
        files = sorted(_files_below(self._files), key=lambda one: (not _is_aside(one[2]), one[0]))
        total = sum(one_size for _, one_size, _ in files) + size
        for _, one_size, local in files:
            if total <= self._limit:
                break
            if self._evict(local):
                total -= one_size
        return total <= self._limit

    def _evict(self, local: Path) -> bool:
        """Delete a file unless somebody uses it; whether it is gone."""
        if _is_aside(local):
            return _remove_abandoned(local)
        return self._in_use.delete(local)


def _seen(path: ObjectPath) -> Listed:
    listed = path.look()
    if listed is None:
        raise FileNotFoundError(errno.ENOENT, "no such object", str(path))
    return listed


def _files_below(root: Path) -> Iterator[tuple[float, int, Path]]:
    """When each file was last used, its size and its path."""
    for directory, _, names in os.walk(root):
        for name in names:
            path = Path(directory) / name
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                yield status.st_mtime, status.st_size, path


def _is_aside(local: Path) -> bool:
    return local.name.startswith(_ASIDE)


def _remove_abandoned(temporary: Path) -> bool:
    """Delete a half-written file whose writer is dead; whether it is gone."""
    try:
        held = os.open(temporary, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        temporary.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(held)
    return True


def _digest(path: Path) -> str:
    """SHA-256 of a local file; empty where it is not there."""
    try:
        with path.open("rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return ""


def _size_asked() -> int:
    text = os.environ.get("CAPT_CACHE_SIZE") or DEFAULT_SIZE
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]?B?)", text.strip().upper())
    if not match or match[2] not in _UNITS:
        raise UsageError(f"cannot read {text!r}", location="CAPT_CACHE_SIZE", hint="write 200GB, or a number of bytes")
    return int(float(match[1]) * _UNITS[match[2]])
