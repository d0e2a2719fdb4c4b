"""Deletes files that no live commit references, once no job can be reading or writing them.

    kept      files that live commits or leased snapshots reference, and all files of a table that a job writes to
    deleted   files of superseded commits, a while after the log entry that superseded them
    deleted   files of killed jobs: work plans, shards and manifests without a commit, temporary files, expired leases
    deleted   run reports of a dataset, except the newest 10 of each kind
    deleted   run directories of registered models that were never promoted or are no longer kept, once unchanged

A table is collected under a lease of its own (`features.store.leases`), so that no job writes to it between the reading
of its log and the deletion of its files. Tables that a job may write to are skipped.

Logs and the manifests that they reference are kept as a table's history. Orphan files that capt did not write are kept,
too: `verify` lists them. Files of killed jobs are kept for at least an hour, because the job may be running.
"""

import contextlib
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from features.io.atomic_files import temporary_path, working_path
from features.io.file_trees import files_below, newest_change
from features.io.locations import is_remote
from features.io.temporary_names import is_temporary
from features.store.commit_log import MANIFEST_NAME, MANIFESTS, CommitLog, list_paths
from features.store.layout import (
    COMMIT_NAME,
    EXTRACTOR_NAME,
    EXTRACTOR_RECORD,
    FEATURES,
    FROZEN_EXTRACTORS,
    GRACE_SECONDS,
    LEASES,
    MODELS,
    REPORTS,
    RUNS,
    WORK,
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

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def collect_garbage(options: StoreGc) -> dict[str, Any]:
    """Deletes files that no live commit of a store has referenced for some time.

    Returns:
        `files` and `bytes`, the number and size of the deleted files; `paths`, within the store; `leased`, the number
        of files that only a lease keeps; `dry_run`; and `seconds`.

    Raises:
        UsageError: The time is invalid.
        CorruptFileError: A log or manifest cannot be read, so that the referenced files are unknown.
    """
    started = time.monotonic()
    store, older_than = open_store(options.store).path, options.older_than
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", older_than)
    if not match:
        hint = "Use 24h, 7d or 0s, for example."
        raise UsageError(f"invalid time {older_than!r}", location="--older-than", hint=hint)
    collector = _Collector(store, float(match[1]) * _UNITS[match[2]], options.dry_run)
    collector.collect()
    return {
        "files": len(collector.paths),
        "bytes": collector.bytes,
        "paths": sorted(collector.paths),
        "leased": collector.leased,
        "dry_run": options.dry_run,
        "seconds": round(time.monotonic() - started, 3),
    }


class _History:
    """The manifests of all commits of one table by digest, oldest first, and when each superseded one was replaced."""

    def __init__(self, root: Path) -> None:
        self.root = root
        log = CommitLog(root)
        entries = log.entries()
        self.manifests = log.read_complete_state().known
        self.superseded: dict[str, float] = {}
        for number, digest in enumerate(entries, start=1):
            moment = log.entry_path(number).stat().st_mtime
            for replaced in self.manifests[digest].replaces if digest in self.manifests else ():
                self.superseded.setdefault(replaced, moment)

    def kept(self, leased: Collection[str]) -> list[Manifest]:
        """Returns the live and the leased manifests."""
        return [one for digest, one in self.manifests.items() if digest not in self.superseded or digest in leased]


def _unreferenced_since(
    histories: Iterable[_History], references: Callable[[Manifest], Iterable[str]]
) -> dict[str, float]:
    """Returns the time, in seconds since 1970, since which no commit has each reference of a superseded one."""
    since: dict[str, float] = {}
    for history in histories:
        for digest, moment in history.superseded.items():
            for one in references(history.manifests[digest]) if digest in history.manifests else ():
                since[one] = max(moment, since.get(one, 0.0))
    return since


def _list_extractors(manifest: Manifest) -> list[str]:
    facts = manifest.facts
    return [facts.network] if isinstance(facts, FeatureMetadata) and facts.network else []


@dataclass
class _Collector:
    """One garbage collection; `paths` and `bytes` are the paths and the total size of the deleted files."""

    store: Path
    age: float
    dry_run: bool
    paths: list[str] = field(default_factory=list)
    bytes: int = 0
    leased: int = 0

    def __post_init__(self) -> None:
        self._now = time.time()
        self._orphan_age = max(self.age, GRACE_SECONDS)
        self._check_lease: Callable[[], None] = lambda: None
        self._deleted_plans: set[Path] = set()

    def collect(self) -> None:
        """Deletes everything that can be deleted."""
        # An unreadable log or manifest stops the collection before anything is deleted.
        for root in table_roots(self.store):
            _History(root)
        self._with_lease(WORK, self._collect_work)
        for root in table_roots(self.store):
            self._with_lease(table_name(self.store, root), partial(self._collect_table, root))
        self._with_lease(FROZEN_EXTRACTORS, self._collect_extractors)
        for path in (*self.store.glob("*"), *(self.store / LEASES).glob("*")):
            if is_temporary(path):
                self._delete_orphan(path)
        for path in expired_leases(self.store, self._now):
            self._delete(path)
        here = working_path(self.store)
        for path in files_below(here) if here != self.store and not self.dry_run else ():
            if is_temporary(path) and self._now - newest_change(path) >= GRACE_SECONDS:
                path.unlink(missing_ok=True)

    def _with_lease(self, table: str, collect: Callable[[], None]) -> None:
        """Collects a table, or another directory of the store, unless a job may write to it."""
        if self.dry_run:
            if not is_writing(self.store, table):
                collect()
            return
        with lease_for_deletion(self.store, table) as held:
            if held:
                self._now, self._check_lease = held.now(), held.check
                collect()
        self._check_lease = lambda: None

    def _collect_work(self) -> None:
        """Deletes old work plans, before the shards that they list as written, so that no plan outlives its shards."""
        for path in sorted((self.store / WORK).glob("*")):
            if self._now - newest_change(path) >= self._orphan_age:
                self._deleted_plans.add(path)
                self._delete_tree(path)

    def _list_kept(self, history: _History) -> list[Manifest]:
        return history.kept(leased_manifests(self.store, table_name(self.store, history.root), self._now))

    def _collect_table(self, root: Path) -> None:
        # Leases are read after the log: a reader that writes its lease later finds the same log state.
        history = _History(root)
        kept, live = list_paths(self._list_kept(history)), list_paths(history.kept(()))
        planned = {name for name, plan in planned_commits(self.store).items() if plan not in self._deleted_plans}
        since = _unreferenced_since([history], lambda manifest: list_paths([manifest]))
        if root.parent.name == MODELS:
            self._collect_runs(root, kept, since)
        for path in files_below(root):
            name = path.relative_to(root).as_posix()
            # A running or killed job may count a file among the shards that it has written.
            is_planned = f"{root.name}-{name.partition('/')[0]}" in planned
            if name in live or is_planned or name.startswith(f"{RUNS}/"):
                continue
            if name not in since:
                if _is_written_by_capt(name, history):
                    self._delete_orphan(path)
            elif self._now - since[name] >= self.age:
                if name in kept:
                    self.leased += 1
                else:
                    self._delete(path)
        for path in old_reports(root):
            self._delete_orphan(path)

    def _collect_runs(self, root: Path, kept: set[str], since: dict[str, float]) -> None:
        kept_runs = {path.split("/")[1] for path in kept}
        runs_since = {path.split("/")[1]: moment for path, moment in since.items()}
        for path in sorted((root / RUNS).glob("*")):
            if path.name in kept_runs:
                continue
            if path.name in runs_since:
                is_old = self._now - runs_since[path.name] >= self.age
            else:
                is_old = self._now - newest_change(path) >= self._orphan_age
            if is_old:
                self._delete_tree(path)
        here = working_path(root)
        for path in sorted((here / RUNS).glob("*")) if here != root and not self.dry_run else ():
            if path.name not in kept_runs and self._now - newest_change(path) >= self._orphan_age:
                self._check_lease()
                shutil.rmtree(path, ignore_errors=True)

    def _collect_extractors(self) -> None:
        histories = [_History(root) for root in table_roots(self.store)]
        kept = {one for each in histories for manifest in self._list_kept(each) for one in _list_extractors(manifest)}
        kept |= {
            _read_extractor_record(one.root / EXTRACTOR_RECORD) for one in histories if one.root.parent.name == FEATURES
        }
        since = _unreferenced_since(histories, _list_extractors)
        for path in sorted((self.store / FROZEN_EXTRACTORS).glob("*")):
            if is_temporary(path) or (EXTRACTOR_NAME.fullmatch(path.name) and path.stem not in kept | set(since)):
                self._delete_orphan(path)
            elif path.stem in since and path.stem not in kept and self._now - since[path.stem] >= self.age:
                self._delete(path)

    # === Deleting ===

    def _delete_orphan(self, path: Path) -> None:
        """Deletes a file that no commit has referenced, unless a running job may have written it."""
        if self._now - newest_change(path) >= self._orphan_age:
            self._delete(path)

    def _delete(self, path: Path) -> None:
        try:
            size = path.lstat().st_size
            if not self.dry_run:
                self._check_lease()
                path.unlink()
                self._delete_empty_directories(path.parent)
        except FileNotFoundError:
            return
        self.paths.append(path.relative_to(self.store).as_posix())
        self.bytes += size

    def _delete_tree(self, path: Path) -> None:
        """Deletes a directory atomically; in a bucket, which has no rename, file by file."""
        files = list(files_below(path)) if path.is_dir() else [path]
        if self.dry_run or is_remote(path):
            # A work plan that lacks files has unfinished work units.
            for one in files:
                self._delete(one)
            return
        temporary = temporary_path(path)
        # Another collection may delete the same directory.
        with contextlib.suppress(FileNotFoundError):
            size = sum(one.lstat().st_size for one in files)
            self._check_lease()
            path.rename(temporary)
            self.paths += [one.relative_to(self.store).as_posix() for one in files]
            self.bytes += size
            shutil.rmtree(temporary, ignore_errors=True) if temporary.is_dir() else temporary.unlink()

    def _delete_empty_directories(self, directory: Path) -> None:
        """Deletes the directory of a commit or report, and directories in it, if they are empty."""
        with contextlib.suppress(OSError):
            while True:
                parts = directory.relative_to(self.store).parts[2:]
                if not any(map(COMMIT_NAME.fullmatch, parts[1:2] if parts[:1] == (REPORTS,) else parts[:1])):
                    return
                directory.rmdir()
                directory = directory.parent


def _is_written_by_capt(name: str, history: _History) -> bool:
    """Returns whether a file that no commit references has a name that capt writes."""
    directory, _, rest = name.partition("/")
    if is_temporary(Path(name)):
        return True
    if directory == MANIFESTS:
        return bool(MANIFEST_NAME.fullmatch(rest)) and rest.removesuffix(".json") not in history.manifests
    return bool(rest and COMMIT_NAME.fullmatch(directory))


def _read_extractor_record(path: Path) -> str:
    """Returns the SHA-256 of a feature table's extractor; empty if the table has no extractor yet."""
    try:
        return str(parse_json(path.read_bytes())["network"])
    except FileNotFoundError:
        return ""
    except (ValueError, KeyError, TypeError):
        raise CorruptFileError("the file is corrupt", location=str(path)) from None
