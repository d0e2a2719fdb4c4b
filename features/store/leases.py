"""Leases: what running jobs count on, so that compaction and garbage collection leave it alone.

    STORE/pins/<id>.json    {"version":1,"purpose":"read","seconds":600.0,"tables":{"features/ab…":["<manifest>",…]}}

A lease holds for `seconds` after its file was last touched, and its job touches it three times in that time. A killed
job leaves its lease behind, which ends by itself.

    read      a reader of the manifests named: garbage collection keeps their files
    prepare   a job that adds to the tables named: compaction drops no row, garbage collection no file of theirs
    compact   a compaction of the tables named: garbage collection deletes no file of theirs
    change    any other command that commits to the tables named: garbage collection deletes no file of theirs
    collect   whoever deletes files of the tables named: writers wait until it has ended

A writer puts its lease before it looks at a table, and then waits while a `collect` lease names the table. Whoever
deletes puts a `collect` lease, and then leaves the table alone if a writer's lease names it. So of two that meet, one
at least sees the other. No log changes while files are deleted by what it says, and no writer counts on a file that
is being deleted.
"""

import contextlib
import errno
import logging
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from pydantic import Field, ValidationError

from features.store.commit_log import CommitLog
from features.store.held_leases import HeldLease, held_leases, register_lease
from features.store.layout import LEASES, NETWORKS, WORK
from schemas.errors import CaptError, StoreError
from schemas.frozen import Frozen
from schemas.manifests import Manifest, Sha256
from schemas.table_config import canonical_json

LEASE_SECONDS = 600.0
# Writers wait that long for a collection that was killed.
COLLECT_SECONDS = 120.0

Purpose = Literal["read", "prepare", "compact", "change", "collect"]

_WRITERS: tuple[Purpose, ...] = ("prepare", "compact", "change")
_OF_JOBS = (WORK, NETWORKS)
_POLL_SECONDS = 0.5

_log = logging.getLogger("capt.store")


class Lease(Frozen):
    """What one running job counts on.

    Args:
        version: int. Version of the lease's format.
        purpose: str. What the job does, see above.
        seconds: float. How long the lease holds after its file was last touched.
        tables: dict. By table, as a path within the store such as `features/0123456789abcdef`: the digests of the
            manifests that are read.
    """

    version: Literal[1] = 1
    purpose: Purpose
    seconds: float = Field(gt=0)
    tables: dict[str, tuple[Sha256, ...]]

    def is_writing(self, table: str) -> bool:
        """Whether its job may write to a table; jobs that have plans may write plans and networks too."""
        is_of_job = table in _OF_JOBS and self.purpose in ("prepare", "compact")
        return self.purpose in _WRITERS and (table in self.tables or is_of_job)


class LeasableTable(Protocol):
    """An open table: its directory, and the manifests it shows."""

    root: Path
    manifests: list[Manifest]


Tables = TypeVar("Tables", bound=Iterable[LeasableTable])


@contextlib.contextmanager
def lease(
    store: Path, purpose: Purpose, tables: Mapping[str, Iterable[str]], seconds: float = LEASE_SECONDS
) -> Iterator[Path]:
    """Hold a lease while the block runs; gives its file. A writer's block begins once nobody deletes from its tables.

    Args:
        store: Path. The store's directory.
        purpose: str. What the job does, see above.
        tables: mapping. By table, as `table_name` says: the digests of the manifests that are read, if any.
        seconds: float. How long the lease holds if this process dies.
    """
    mine = Lease(purpose=purpose, seconds=seconds, tables={name: tuple(some) for name, some in tables.items()})
    with _put(store, mine) as held:
        if purpose in _WRITERS:
            _await_collection(store, mine, held)
        yield held.path


@contextlib.contextmanager
def lease_for_deletion(store: Path, table: str, job: Collection[HeldLease] = ()) -> Iterator[HeldLease | None]:
    """Have a table to oneself while the block runs, to delete files of it.

    Args:
        store: The store's directory.
        table: The table, as `table_name` says, or the store's directory of networks or of plans.
        job: The leases of the job that deletes.

    Yields:
        The lease, whose `check` is to be called before each deletion; None if another job may write to the table.
    """
    with _put(store, Lease(purpose="collect", seconds=COLLECT_SECONDS, tables={table: ()})) as held:
        yield None if any(one.is_writing(table) for one in _others(store, held, job)) else held


@contextlib.contextmanager
def _put(store: Path, mine: Lease) -> Iterator[HeldLease]:
    """Put a lease, renew it while the block runs, and delete it afterwards."""
    path = store / LEASES / f"{uuid.uuid4().hex}.json"
    data = canonical_json(mine.model_dump(mode="json"))
    held = HeldLease(path, data, mine.seconds, {store / name: () for name in mine.tables})
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(mine.seconds / 3):
            with contextlib.suppress(OSError, CaptError):
                held.renew()

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        with register_lease(held):
            yield held
    finally:
        ended.set()
        thread.join()
        path.unlink(missing_ok=True)


def _await_collection(store: Path, mine: Lease, held: HeldLease) -> None:
    """Wait while somebody deletes files of a table that a writer's lease names."""
    is_told = False
    while any(
        one.purpose == "collect" and any(map(mine.is_writing, one.tables))
        for one in _others(store, held, held_leases())
    ):
        if not is_told:
            _log.info("%s: waiting for a garbage collection of %s", store, ", ".join(mine.tables))
            is_told = True
        pause()
        held.check()


def _others(store: Path, held: HeldLease, job: Collection[HeldLease]) -> Iterator[Lease]:
    """The leases that hold now, but for those of a job."""
    own = {one.path for one in job}
    return (one for path, one in _leases(store, held.now()) if path not in own)


def pause() -> None:
    """Let time pass before one looks at the leases again."""
    time.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def hold_snapshot(store: Path, choose: Callable[[], Tables], seconds: float = LEASE_SECONDS) -> Iterator[Tables]:
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
    return [held for _, held in _leases(store, time.time())]


def expired_leases(store: Path, now: float | None = None) -> list[Path]:
    """The files of leases that hold no longer at a moment, seconds since 1970; None is now."""
    moment = time.time() if now is None else now
    return [path for path, held, touched in _lease_files(store) if touched + held.seconds <= moment]


def leased_manifests(store: Path, table: str, now: float) -> set[str]:
    """The digests of a table's manifests that somebody reads."""
    return {digest for _, held in _leases(store, now) for digest in held.tables.get(table, ())}


def is_writing(store: Path, table: str, now: float | None = None) -> bool:
    """Whether a job may write to a table, at a moment, seconds since 1970; None is now."""
    return any(held.is_writing(table) for _, held in _leases(store, time.time() if now is None else now))


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


def _leases(store: Path, now: float) -> list[tuple[Path, Lease]]:
    """The leases that hold at a moment, with their files."""
    return [(path, held) for path, held, touched in _lease_files(store) if touched + held.seconds > now]


def _lease_files(store: Path) -> Iterator[tuple[Path, Lease, float]]:
    """Every lease file, its lease, and when it was last touched by the clock of the file system or service."""
    for path in sorted((store / LEASES).glob("*.json")):
        with contextlib.suppress(FileNotFoundError):
            held = _read(path)
            yield path, held, path.stat().st_mtime


def _live(root: Path) -> set[str]:
    return {manifest.digest for manifest in CommitLog(root).live()}


def _read(path: Path) -> Lease:
    try:
        return Lease.model_validate_json(path.read_bytes())
    except ValidationError:
        raise StoreError(
            "the lease cannot be read", location=str(path), hint="delete it once no job uses the store"
        ) from None
