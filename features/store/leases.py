"""Protects the files of running jobs from compaction and garbage collection by leases.

    STORE/pins/<id>.json    {"version":1,"purpose":"read","seconds":600.0,"tables":{"features/ab…":["<manifest>",…]}}

A lease is valid for `seconds` after its file was last touched. Its job touches the file three times in that time. The
lease of a killed job expires.

    read      a reader of the listed manifests: garbage collection keeps their files
    prepare   a job that adds rows to the tables: compaction drops no row, garbage collection deletes no file of them
    compact   a compaction of the tables: garbage collection deletes no file of them
    change    any other command that commits to the tables: garbage collection deletes no file of them
    collect   a job that deletes files of the tables: writers wait until it ends

A writer writes its lease before it reads a table, and then waits while a `collect` lease lists the table. A job that
deletes files writes a `collect` lease, and then skips the table if a writer's lease lists it. If both start at the same
time, at least one finds the lease of the other. A log therefore never changes while files are deleted according to it,
and a writer never uses a file that is being deleted.
"""

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from features.store.commit_log import CommitLog
from features.store.held_leases import HeldLease, held_leases, register_lease
from features.store.layout import FROZEN_EXTRACTORS, LEASES, WORK
from features.store.snapshot import TableSnapshot
from schemas.errors import ACCESS_DENIED, CaptError, StoreError
from schemas.frozen import Frozen
from schemas.manifests import Sha256
from schemas.table_config import canonical_json

LEASE_SECONDS = 600.0
# Also the time for which writers wait if a garbage collection was killed.
COLLECT_SECONDS = 120.0

Purpose = Literal["read", "prepare", "compact", "change", "collect"]
Tables = TypeVar("Tables", bound=Iterable[TableSnapshot[Any]])

_WRITERS: tuple[Purpose, ...] = ("prepare", "compact", "change")
_SHARED_DIRECTORIES = (WORK, FROZEN_EXTRACTORS)
_POLL_SECONDS = 0.5

_log = logging.getLogger("capt.store")


class Lease(Frozen):
    """The content of a lease file; see the module's docstring."""

    version: Literal[1] = 1
    purpose: Purpose
    seconds: float = Field(gt=0)
    tables: dict[str, tuple[Sha256, ...]]

    def is_writing(self, table: str) -> bool:
        """Returns whether the job may write to a table. Jobs with work plans may also write plans and extractors."""
        is_shared = table in _SHARED_DIRECTORIES and self.purpose in ("prepare", "compact")
        return self.purpose in _WRITERS and (table in self.tables or is_shared)


@contextlib.contextmanager
def lease(
    store: Path, purpose: Purpose, tables: Mapping[str, Iterable[str]], seconds: float = LEASE_SECONDS
) -> Iterator[Path]:
    """Holds a lease while the block runs. A writer's block starts once no job deletes files of its tables.

    Args:
        store: The store's directory.
        purpose: Purpose of the lease; see the module's docstring.
        tables: Digests of the manifests that the job reads, by the table's `table_name`.
        seconds: Time for which the lease is valid if this process dies.

    Yields:
        The lease's file.
    """
    own = Lease(purpose=purpose, seconds=seconds, tables={name: tuple(digests) for name, digests in tables.items()})
    with _hold(store, own) as held:
        is_logged = False
        while purpose in _WRITERS and any(
            other.purpose == "collect" and any(map(own.is_writing, other.tables))
            for other in _others(store, held, held_leases())
        ):
            if not is_logged:
                _log.info("%s: waiting for a garbage collection of %s.", store, ", ".join(own.tables))
                is_logged = True
            pause()
            held.check()
        yield held.path


@contextlib.contextmanager
def lease_for_deletion(store: Path, table: str, job: Collection[HeldLease] = ()) -> Iterator[HeldLease | None]:
    """Holds a lease for the deletion of files of a table while the block runs.

    Args:
        store: The store's directory.
        table: The table's `table_name`, or the name of the store's directory of extractors or of work plans.
        job: The leases of the job that deletes.

    Yields:
        The lease, whose `check` must be called before each deletion; None if another job may write to the table.
    """
    with _hold(store, Lease(purpose="collect", seconds=COLLECT_SECONDS, tables={table: ()})) as held:
        yield None if any(other.is_writing(table) for other in _others(store, held, job)) else held


@contextlib.contextmanager
def _hold(store: Path, own: Lease) -> Iterator[HeldLease]:
    """Writes a lease, renews it while the block runs, and deletes it afterwards."""
    path, data = store / LEASES / f"{uuid.uuid4().hex}.json", canonical_json(own.model_dump(mode="json"))
    held = HeldLease(path, data, own.seconds, frozenset(store / name for name in own.tables))
    ended = threading.Event()

    def renew() -> None:
        while not ended.wait(own.seconds / 3):
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


def _others(store: Path, held: HeldLease, job: Collection[HeldLease]) -> Iterator[Lease]:
    """Iterates over the valid leases of other jobs."""
    own = {one.path for one in job}
    return (lease for path, lease in _valid_leases(store, held.now()) if path not in own)


def pause() -> None:
    time.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def hold_snapshot(store: Path, open_tables: Callable[[], Tables], seconds: float = LEASE_SECONDS) -> Iterator[Tables]:
    """Opens tables and protects their files while the block runs, from later commits, compaction and collection.

    Args:
        store: The store's directory.
        open_tables: Opens the tables. Called again if a commit was superseded between the opening and the lease.
        seconds: Time for which the lease is valid if this process dies.
    """
    while True:
        tables = open_tables()
        digests = {table_name(store, table.root): [one.digest for one in table.manifests] for table in tables}
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(lease(store, "read", digests, seconds))
            except OSError as error:
                if error.errno not in ACCESS_DENIED:
                    raise
                message = "%s: the store is read-only, so no lease protects these files from garbage collection."
                _log.warning(message, store)
            live = {name: {one.digest for one in CommitLog(store / name).live()} for name in digests}
            if all(live[name].issuperset(read) for name, read in digests.items()):
                yield tables
                return


def current_leases(store: Path) -> list[Lease]:
    """Returns the leases that are valid now; raises StoreError if a lease cannot be read."""
    return [lease for _, lease in _valid_leases(store, time.time())]


def expired_leases(store: Path, now: float | None = None) -> list[Path]:
    """Returns the files of leases that have expired at a time in seconds since 1970; None is now."""
    moment = time.time() if now is None else now
    return [path for path, lease, touched in _lease_files(store) if touched + lease.seconds <= moment]


def leased_manifests(store: Path, table: str, now: float) -> set[str]:
    """Returns the digests of a table's manifests that a job reads."""
    return {digest for _, lease in _valid_leases(store, now) for digest in lease.tables.get(table, ())}


def is_writing(store: Path, table: str, now: float | None = None) -> bool:
    """Returns whether a job may write to a table, at a time in seconds since 1970; None is now."""
    return any(lease.is_writing(table) for _, lease in _valid_leases(store, time.time() if now is None else now))


def is_busy(store: Path, table: str, *purposes: Purpose) -> bool:
    """Returns whether a lease with one of these purposes lists the table."""
    return any(table in lease.tables and lease.purpose in purposes for lease in current_leases(store))


def table_name(store: Path, root: Path) -> str:
    """Returns the name of a table in leases: its path within the store."""
    return root.relative_to(store).as_posix()


def _valid_leases(store: Path, now: float) -> list[tuple[Path, Lease]]:
    return [(path, lease) for path, lease, touched in _lease_files(store) if touched + lease.seconds > now]


def _lease_files(store: Path) -> Iterator[tuple[Path, Lease, float]]:
    """Iterates over lease files, leases, and times of the last touch by the clock of the file system or service."""
    for path in sorted((store / LEASES).glob("*.json")):
        with contextlib.suppress(FileNotFoundError):
            try:
                lease = Lease.model_validate_json(path.read_bytes())
            except ValidationError:
                hint = "Delete the file once no job uses the store."
                raise StoreError("the lease cannot be read", location=str(path), hint=hint) from None
            yield path, lease, path.stat().st_mtime
