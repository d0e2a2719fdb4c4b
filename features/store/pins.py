"""Leases: what running jobs count on, so that compaction and garbage collection leave it alone.

    STORE/pins/<id>.json    {"version":1,"purpose":"read","seconds":600.0,"tables":{"features/ab…":["<manifest>",…]}}

A lease holds for `seconds` after its file was last touched, and its job touches it three times in that time. A killed
job leaves its lease behind, which ends by itself.

    read      a reader of the manifests named: garbage collection leaves their files
    prepare   a job that adds to the tables named: compaction drops no row of theirs, garbage collection no file
    compact   a compaction of the tables named: garbage collection drops no file of theirs
"""

import contextlib
import errno
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from pydantic import Field, ValidationError

from features.files import touch, write
from features.store.log import CommitLog
from schemas.errors import CaptError, StoreError
from schemas.manifests import Manifest, Sha256
from schemas.recipes import Frozen, canonical_json

PINS = "pins"
LEASE_SECONDS = 600.0

Purpose = Literal["read", "prepare", "compact"]

_log = logging.getLogger("capt.store")


class Lease(Frozen):
    """What one running job counts on.

    Args:
        version: int. Version of the lease's format.
        purpose: str. `read`, `prepare` or `compact`.
        seconds: float. How long the lease holds after its file was last touched.
        tables: dict. By table, as a path within the store such as `features/0123456789abcdef`: the digests of the
            manifests that are read.
    """

    version: Literal[1] = 1
    purpose: Purpose
    seconds: float = Field(gt=0)
    tables: dict[str, tuple[Sha256, ...]]


class Pinnable(Protocol):
    """An open table: its directory, and the manifests it shows."""

    root: Path
    manifests: list[Manifest]


Tables = TypeVar("Tables", bound=Iterable[Pinnable])


@contextlib.contextmanager
def lease(
    store: Path, purpose: Purpose, tables: Mapping[str, Iterable[str]], seconds: float = LEASE_SECONDS
) -> Iterator[Path]:
    """Hold a lease while the block runs; gives its file.

    Args:
        store: Path. The store's directory.
        purpose: str. `read`, `prepare` or `compact`.
        tables: mapping. By table, as `table_name` says: the digests of the manifests that are read, if any.
        seconds: float. How long the lease holds if this process dies.
    """
    path = store / PINS / f"{uuid.uuid4().hex}.json"
    held = Lease(purpose=purpose, seconds=seconds, tables={name: tuple(some) for name, some in tables.items()})
    data = canonical_json(held.model_dump(mode="json"))
    write(path, data)
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(seconds / 3):
            with contextlib.suppress(OSError, CaptError):
                touch(path, data)

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield path
    finally:
        ended.set()
        thread.join()
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def pinned(store: Path, choose: Callable[[], Tables], seconds: float = LEASE_SECONDS) -> Iterator[Tables]:
    """Open tables whose files stay while the block runs, whatever is committed, compacted or collected meanwhile.

    Args:
        store: Path. The store's directory.
        choose: function. Opens the tables; called again where a commit was replaced between opening and pinning.
        seconds: float. How long the lease holds if this process dies.
    """
    while True:
        tables = choose()
        digests = {table.root: [manifest.digest for manifest in table.manifests] for table in tables}
        with _read_lease(store, digests, seconds):
            if all(set(some) <= _live(root) for root, some in digests.items()):
                yield tables
                return


def current_leases(store: Path) -> list[Lease]:
    """The leases that hold now; StoreError where one cannot be read."""
    found = []
    for path in sorted((store / PINS).glob("*.json")):
        with contextlib.suppress(FileNotFoundError):
            held = _read(path)
            if path.stat().st_mtime + held.seconds > time.time():
                found.append(held)
    return found


def expired_leases(store: Path) -> list[Path]:
    """The files of leases that hold no longer."""
    found = []
    for path in sorted((store / PINS).glob("*.json")):
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime + _read(path).seconds <= time.time():
                found.append(path)
    return found


def is_busy(store: Path, table: str, *purposes: Purpose) -> bool:
    """Whether a lease of one of these purposes names the table."""
    return any(table in held.tables and held.purpose in purposes for held in current_leases(store))


def table_name(store: Path, root: Path) -> str:
    """What leases call the table in the directory `root`: its path within the store."""
    return root.relative_to(store).as_posix()


@contextlib.contextmanager
def _read_lease(store: Path, digests: Mapping[Path, list[str]], seconds: float) -> Iterator[None]:
    named = {table_name(store, root): some for root, some in digests.items()}
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lease(store, "read", named, seconds))
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise
            _log.warning("the store cannot be written to, so what is read is not pinned: %s", store)
        yield


def _live(root: Path) -> set[str]:
    return {manifest.digest for manifest in CommitLog(root).live()}


def _read(path: Path) -> Lease:
    try:
        return Lease.model_validate_json(path.read_bytes())
    except ValidationError:
        raise StoreError(
            "the lease cannot be read", where=str(path), mend="delete it once no job uses the store"
        ) from None
