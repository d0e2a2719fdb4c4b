"""Garbage collection: files that no live commit names, deleted once nobody can be reading or writing them.

    kept      what live commits name, what a pinned snapshot names, all of a table that a job is at work on
    deleted   what a replaced commit named, so long after the log entry that replaced it
    deleted   what killed jobs left: plans, shards and manifests of commits never made, half-written files, old leases
    deleted   run reports of a dataset, but for the newest 10 of each kind
    deleted   runs of models that were never promoted, or are champions of long ago: whole, once nothing changes there

A table is collected under a lease of its own (`features.store.leases`): its log is read, and its files are deleted,
while
no job can write to it. Tables that a job may write to are left alone.

Logs, and the manifests they name, are a table's history and stay. Files that capt did not write stay too: `verify`
lists them. What a killed job left is given an hour at least, since the job may be alive.
"""

import contextlib
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from features.io.atomic_files import temporary_path, working_path
from features.io.file_trees import files_below, newest_change
from features.io.locations import is_remote
from features.store.commit_log import MANIFEST_NAME, MANIFESTS, CommitLog
from features.store.layout import (
    COMMIT_NAME,
    FEATURES,
    GRACE_SECONDS,
    LEASES,
    MODELS,
    NETWORK,
    NETWORK_NAME,
    NETWORKS,
    REPORTS,
    RUNS,
    WORK,
    is_temporary,
    planned_commits,
    table_roots,
)
from features.store.leases import expired_leases, is_writing, lease_for_deletion, leased_manifests, table_name
from features.store.run_reports import old_reports
from features.store.store import open_store
from schemas.errors import CorruptFileError, UsageError
from schemas.manifests import FeatureMetadata, Manifest
from schemas.options.store import StoreGc
from schemas.strict_json import parse_json

DEFAULT_AGE = "24h"

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def collect_garbage(options: StoreGc) -> dict[str, Any]:
    """Delete what no live commit of a store has named for some time.

    Args:
        options: The store, and for how long a file must have been unreferenced.

    Returns:
        `files` and `bytes` deleted, `paths` (theirs, within the store), `pinned` (how many more only a lease keeps),
        `dry_run` and `seconds`.

    Raises:
        CorruptFileError: a log or manifest cannot be read, so that it cannot be told what it names.
    """
    started = time.monotonic()
    collector = _Collector(open_store(options.store).path, _parse_age(options.older_than), options.dry_run)
    collector.collect()
    return {
        "files": len(collector.paths),
        "bytes": collector.bytes,
        "paths": sorted(collector.paths),
        "pinned": collector.pinned,
        "dry_run": options.dry_run,
        "seconds": round(time.monotonic() - started, 3),
    }


@dataclass(frozen=True)
class _History:
    """What the commits of one table have named.

    Args:
        root: Path. The table's directory.
        manifests: dict. Every commit's manifest by digest, oldest first.
        replaced: dict. When a replaced one was: seconds since 1970.
    """

    root: Path
    manifests: dict[str, Manifest]
    replaced: dict[str, float]

    def kept(self, pinned: set[str]) -> list[Manifest]:
        """The live manifests, and the pinned ones."""
        return [one for digest, one in self.manifests.items() if digest not in self.replaced or digest in pinned]

    def last_named(self) -> dict[str, float]:
        """When each path was last named by a manifest that has been replaced."""
        ended: dict[str, float] = {}
        for digest, moment in self.replaced.items():
            for entry in self.manifests[digest].entries() if digest in self.manifests else ():
                ended[entry.path] = max(moment, ended.get(entry.path, 0.0))
        return ended


def _history(root: Path) -> _History:
    log = CommitLog(root)
    entries, manifests = log.entries(), log.known()
    replaced: dict[str, float] = {}
    for number, digest in enumerate(entries, start=1):
        moment = log.entry_path(number).stat().st_mtime
        for one in manifests[digest].replaces if digest in manifests else ():
            replaced.setdefault(one, moment)
    return _History(root, manifests, replaced)


@dataclass
class _Collector:
    """One collection; `paths` and `bytes` tell what it deleted, or would."""

    store: Path
    age: float
    plan: bool
    paths: list[str] = field(default_factory=list)
    bytes: int = 0
    pinned: int = 0

    def __post_init__(self) -> None:
        self._now = time.time()
        self._check: Callable[[], None] = lambda: None
        self._old_plans: set[Path] = set()

    def collect(self) -> None:
        """Delete, or tell, everything."""
        # What cannot be read stops the collection before anything is deleted.
        for root in table_roots(self.store):
            _history(root)
        self._alone(WORK, self._collect_work)
        for root in table_roots(self.store):
            self._alone(table_name(self.store, root), partial(self._collect_table, root))
        self._alone(NETWORKS, self._collect_networks)
        for path in (*self.store.glob("*"), *(self.store / LEASES).glob("*")):
            if is_temporary(path):
                self._delete_orphan(path)
        for path in expired_leases(self.store, self._now):
            self._delete(path)
        if working_path(self.store) != self.store and not self.plan:
            self._sweep(working_path(self.store))

    def _alone(self, table: str, collect: Callable[[], None]) -> None:
        """Collect from a table, or another directory of the store, unless a job may write there."""
        if self.plan:
            if not is_writing(self.store, table):
                collect()
            return
        with lease_for_deletion(self.store, table) as held:
            if held:
                self._now, self._check = held.now(), held.check
                collect()
        self._check = lambda: None

    def _sweep(self, here: Path) -> None:
        """Delete what killed jobs left half-written on the local side of a store in a bucket."""
        for path in files_below(here):
            if is_temporary(path) and self._now - newest_change(path) >= GRACE_SECONDS:
                path.unlink(missing_ok=True)

    def _pinned(self, root: Path) -> set[str]:
        """The manifests of a table that somebody reads."""
        return leased_manifests(self.store, table_name(self.store, root), self._now)

    def _collect_work(self) -> None:
        """Plans go before the shards that they call written, so that no plan outlives them."""
        for path in sorted((self.store / WORK).glob("*")):
            if self._now - newest_change(path) >= max(self.age, GRACE_SECONDS):
                self._old_plans.add(path)
                self._delete_tree(path)

    def _collect_table(self, root: Path) -> None:
        # Leases are read after the log: a reader that pins later than this finds in the log what is found here.
        history = _history(root)
        pinned = self._pinned(root)
        planned = {name for name, plan in planned_commits(self.store).items() if plan not in self._old_plans}
        live = {entry.path for manifest in history.kept(set()) for entry in manifest.entries()}
        kept = {entry.path for manifest in history.kept(pinned) for entry in manifest.entries()}
        ended = history.last_named()
        if root.parent.name == MODELS:
            self._collect_runs(history, kept, ended)
        for path in files_below(root):
            name = path.relative_to(root).as_posix()
            # A job, running or killed, may count a file among the shards that it has written.
            is_planned = f"{root.name}-{name.partition('/')[0]}" in planned
            if name in live or is_planned or name.startswith(f"{RUNS}/"):
                continue
            if name not in ended:
                if _is_ours(name, history):
                    self._delete_orphan(path)
            elif self._now - ended[name] >= self.age:
                if name in kept:
                    self.pinned += 1
                else:
                    self._delete(path)
        for path in old_reports(root):
            self._delete_orphan(path)

    def _collect_runs(self, history: _History, kept: set[str], ended: dict[str, float]) -> None:
        named = {path.split("/")[1] for path in kept}
        let_go = {path.split("/")[1]: moment for path, moment in ended.items()}
        for path in self._unnamed(history.root, named):
            since, age = let_go.get(path.name), max(self.age, GRACE_SECONDS)
            if self._now - newest_change(path) >= age if since is None else self._now - since >= self.age:
                self._delete_tree(path)
        here = working_path(history.root)
        for path in self._unnamed(here, named) if here != history.root and not self.plan else ():
            if self._now - newest_change(path) >= max(self.age, GRACE_SECONDS):
                self._check()
                shutil.rmtree(path, ignore_errors=True)

    @staticmethod
    def _unnamed(root: Path, named: set[str]) -> list[Path]:
        """The runs of a model that no commit names."""
        return [path for path in sorted((root / RUNS).glob("*")) if path.name not in named]

    def _collect_networks(self) -> None:
        histories = [_history(root) for root in table_roots(self.store)]
        kept = {digest for history in histories for digest in _networks(history.kept(self._pinned(history.root)))}
        kept |= {_remembered(history.root / NETWORK) for history in histories if history.root.parent.name == FEATURES}
        ended: dict[str, float] = {}
        for history in histories:
            for digest, moment in history.replaced.items():
                for network in _networks([history.manifests[digest]] if digest in history.manifests else []):
                    ended[network] = max(moment, ended.get(network, 0.0))
        for path in sorted((self.store / NETWORKS).glob("*")):
            if is_temporary(path) or (NETWORK_NAME.fullmatch(path.name) and path.stem not in kept | set(ended)):
                self._delete_orphan(path)
            elif path.stem in ended and path.stem not in kept and self._now - ended[path.stem] >= self.age:
                self._delete(path)

    # === Deleting ===

    def _delete_orphan(self, path: Path) -> None:
        """Delete what no commit has named, unless a living job may have written it."""
        if self._now - newest_change(path) >= max(self.age, GRACE_SECONDS):
            self._delete(path)

    def _delete(self, path: Path) -> None:
        try:
            size = path.lstat().st_size
            if not self.plan:
                self._check()
                path.unlink()
                self._tidy(path.parent)
        except FileNotFoundError:
            return
        self.paths.append(path.relative_to(self.store).as_posix())
        self.bytes += size

    def _delete_tree(self, path: Path) -> None:
        """Delete a directory so that it is gone at once; in a bucket, where nothing is renamed, file by file."""
        files = list(files_below(path)) if path.is_dir() else [path]
        if self.plan or is_remote(path):
            # A plan that has lost a part is one with more to do.
            for one in files:
                self._delete(one)
            return
        temporary = temporary_path(path)
        # Another collection may be deleting the same.
        with contextlib.suppress(FileNotFoundError):
            size = sum(one.lstat().st_size for one in files)
            self._check()
            path.rename(temporary)
            self.paths += [one.relative_to(self.store).as_posix() for one in files]
            self.bytes += size
            shutil.rmtree(temporary, ignore_errors=True) if temporary.is_dir() else temporary.unlink()

    def _tidy(self, directory: Path) -> None:
        """Delete the directory of a commit or report, and those in it, where they are empty now."""
        while _is_commit(directory.relative_to(self.store).parts[2:]):
            try:
                directory.rmdir()
            except OSError:
                return
            directory = directory.parent


def _is_commit(parts: tuple[str, ...]) -> bool:
    """Whether a path within a table is the directory of a commit or report, or lies in one."""
    return any(COMMIT_NAME.fullmatch(name) for name in (parts[1:2] if parts[:1] == (REPORTS,) else parts[:1]))


def _is_ours(name: str, history: _History) -> bool:
    """Whether a file that no commit names is one that capt writes."""
    directory, _, rest = name.partition("/")
    if is_temporary(Path(name)):
        return True
    if directory == MANIFESTS:
        return bool(MANIFEST_NAME.fullmatch(rest)) and rest.removesuffix(".json") not in history.manifests
    return bool(rest and COMMIT_NAME.fullmatch(directory))


def _networks(manifests: list[Manifest]) -> set[str]:
    return {manifest.facts.network for manifest in manifests if isinstance(manifest.facts, FeatureMetadata)}


def _remembered(path: Path) -> str:
    """The network that a feature table was begun with; nothing where it has none yet."""
    try:
        return str(parse_json(path.read_bytes())["network"])
    except FileNotFoundError:
        return ""
    except (ValueError, KeyError, TypeError):
        raise CorruptFileError("the note of the table's network is damaged", location=str(path)) from None


def _parse_age(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text)
    if not match:
        raise UsageError(f"cannot read {text!r}", location="--older-than", hint="write 24h, 7d or 0s")
    return float(match[1]) * _UNITS[match[2]]
