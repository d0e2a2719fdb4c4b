"""Object paths: places in a bucket that are used as paths are.

`s3://bucket/prefix/name` is a path of the parts `s3:`, `bucket`, `prefix` and `name`. Asking what is there asks the
service, each time anew. Directories are what keys have before a slash: they are there while something is in them.
Nothing can be opened by name (`os.open`, `numpy.memmap`, `pyarrow.parquet`) but what
`features.io.atomic_files.ensure_local` gives.
"""

import contextlib
import errno
import io
import os
import stat
import uuid
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PosixPath
from typing import Any, TypeVar

from features.io.bucket import Bucket, Listed, open_bucket
from features.io.cache_paths import cache_path
from features.io.object_stores import check_address, describe_unreachable
from features.io.object_transfers import upload
from features.io.retries import retry
from features.io.uris import is_uri
from schemas.errors import CaptError, UsageError

_ROOTS = ("s3:/", "gs:/")

Answer = TypeVar("Answer")


def local_path(name: str | Path, option: str = "") -> Path:
    """Returns the path of a file or directory that must be on this machine.

    Args:
        name: What a user names.
        option: The option that names it, for the message.

    Returns:
        The path, relative if it is named so.

    Raises:
        UsageError: It is an address.
    """
    _check_slashes(name)
    if isinstance(name, ObjectPath) or is_uri(str(name)):
        location = f"{option} {name}".strip()
        raise UsageError(
            "an address, and a path on this machine is needed", location=location, hint="Name a local path."
        )
    return Path(name)


def _check_slashes(name: str | Path) -> None:
    """Refuse an address in a `Path`, which has lost a slash: a local directory `s3:` is never meant."""
    if isinstance(name, Path) and not isinstance(name, ObjectPath) and str(name).startswith(_ROOTS):
        raise UsageError("a Path is not an address", location=str(name), hint="Pass the address as a string.")


def parse_location(name: str | Path) -> Path:
    """What a user names, by path or address, as a path; a relative one is taken from the working directory.

    Raises:
        UsageError: it is an address where nothing can be kept.
    """
    if isinstance(name, ObjectPath):
        return name
    _check_slashes(name)
    if not is_uri(str(name)):
        return Path(name).absolute()
    check_address(str(name))
    if ".." in str(name).split("/"):
        raise UsageError("an address has no ..", location=str(name))
    return ObjectPath(str(name))


class ObjectPath(PosixPath):
    """A path in a bucket. What is not defined here raises: a local file of that name is never meant."""

    def __str__(self) -> str:
        text = super().__str__()
        return text.replace(":/", "://", 1) if text.startswith(_ROOTS) else text

    def __fspath__(self) -> str:
        raise TypeError(f"{self} is an object, and no file that can be opened by name")

    def absolute(self) -> "ObjectPath":
        """Itself."""
        return self

    @property
    def working_path(self) -> Path:
        """Where this machine keeps what it works with here."""
        return cache_path(str(self), "local")

    # === What is there ===

    def look(self) -> Listed | None:
        """What the service says of the object; None where there is none."""
        return self._ask(lambda bucket, key: bucket.look(key))

    def exists(self, **_: Any) -> bool:
        """Whether there is an object, or one below."""
        return self.is_file() or self.is_dir()

    def is_file(self, **_: Any) -> bool:
        """Whether there is an object."""
        return self.look() is not None

    def is_dir(self, **_: Any) -> bool:
        """Whether there is an object below."""
        with self._in_bucket():
            return self._ask(lambda bucket, key: bucket.has_below(_directory(key)))

    def stat(self, **_: Any) -> os.stat_result:
        """Size and time of the object; FileNotFoundError where there is none."""
        listed = self.look()
        if listed is None:
            raise FileNotFoundError(errno.ENOENT, "no such object", str(self))
        seconds = listed.modified_ns / 1e9
        times = [int(seconds)] * 3
        return os.stat_result(
            (stat.S_IFREG | 0o644, 0, 0, 1, 0, 0, listed.size, *times),
            {"st_mtime": seconds, "st_mtime_ns": listed.modified_ns},
        )

    def lstat(self) -> os.stat_result:
        """As `stat`: there are no links."""
        return self.stat()

    def iterdir(self) -> Iterator["ObjectPath"]:  # type: ignore[override]
        """What lies directly below."""
        with self._in_bucket():
            prefixes, objects = self._ask(lambda bucket, key: bucket.level(_directory(key)))
        names = {one.rstrip("/").rpartition("/")[2] for one in prefixes}
        names |= {one.key.rpartition("/")[2] for one in objects}
        yield from (self / name for name in sorted(names - {""}))

    def listing(self) -> list[tuple["ObjectPath", Listed]]:
        """Every object below, by key."""
        start = len(_directory(open_bucket(str(self))[1]))
        with self._in_bucket():
            found = self._ask(lambda bucket, key: list(bucket.below(_directory(key))))
        return [(self / one.key[start:], one) for one in found if not one.key.endswith("/")]

    def glob(self, pattern: str, **_: Any) -> Iterator["ObjectPath"]:  # type: ignore[override]
        """What matches a pattern of names; `**` may come first, and then stands for any directories."""
        first, _slash, rest = pattern.partition("/")
        if first == "**":
            yield from (path for path, _listed in self.listing() if fnmatchcase(path.name, rest))
            return
        if not any(sign in first for sign in "*?["):
            found = iter([self / first])
        else:
            found = (path for path in self.iterdir() if fnmatchcase(path.name, first))
        for path in found:
            if rest:
                yield from path.glob(rest)
            elif first != path.name or path.exists():
                yield path

    # === Reading and writing ===

    def read_bytes(self) -> bytes:
        """The object's bytes; FileNotFoundError where there is none."""
        return self._ask(lambda bucket, key: bucket.read(key))

    def read_text(self, encoding: str | None = None, errors: str | None = None, **_: Any) -> str:
        """The object's bytes as text."""
        return self.read_bytes().decode(encoding or "utf-8", errors or "strict")

    def open(self, mode: str = "rb", *_: Any, **__: Any) -> io.BytesIO:  # type: ignore[override]
        """The object's bytes as a file, read whole; for small ones."""
        if mode != "rb":
            raise ValueError(f"objects are opened to be read, not with mode {mode!r}")
        return io.BytesIO(self.read_bytes())

    def put(self, data: bytes) -> None:
        """Put the object whole, in place of what was there; PermissionError where that is not allowed."""
        with self._in_bucket():
            self._request(lambda bucket, key: bucket.put(key, data))

    def put_if_absent(self, data: bytes) -> bool:
        """Put the object only where none is; whether this call put it, whatever answers were lost."""
        writer = uuid.uuid4().hex
        with self._in_bucket():
            return self._request(lambda bucket, key: bucket.put_if_absent(key, data, writer))

    def upload(self, source: Path) -> None:
        """Put a local file's bytes, however many; PermissionError where that is not allowed."""
        upload(source, str(self))

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the object."""
        if not missing_ok and not self.is_file():
            raise FileNotFoundError(errno.ENOENT, "no such object", str(self))
        self._request(lambda bucket, key: bucket.delete(key))

    def remove_tree(self) -> None:
        """Delete every object below."""
        for path, _listed in self.listing():
            path.unlink(missing_ok=True)

    def mkdir(self, *_: Any, **__: Any) -> None:
        """Nothing: a directory is there once something is in it."""

    def rmdir(self) -> None:
        """Nothing: a directory is gone once nothing is in it."""

    @contextlib.contextmanager
    def _in_bucket(self) -> Iterator[None]:
        """A block that writes or lists, for which nothing but the bucket can be missing."""
        try:
            yield
        except FileNotFoundError as error:
            raise CaptError(
                "there is no such bucket", location=str(self), hint="make it, or check the address"
            ) from error

    def _request(self, request: Callable[[Bucket, str], Answer]) -> Answer:
        address = str(self)
        bucket, key = open_bucket(address)
        return retry(lambda: request(bucket, key), address)

    def _ask(self, request: Callable[[Bucket, str], Answer]) -> Answer:
        # Not to be allowed to look is no sign that nothing is there, which an OSError would be taken for.
        try:
            return self._request(request)
        except PermissionError as error:
            raise describe_unreachable(error, str(self)) from error


def _directory(key: str) -> str:
    """The prefix of what lies below a key."""
    return f"{key.rstrip('/')}/" if key.strip("/") else ""
