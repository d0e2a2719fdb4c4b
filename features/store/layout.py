"""The layout of a store's directory, for those who look at its files rather than its rows."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from features.io.atomic_files import TEMP_PREFIX
from features.io.locations import ObjectPath

FEATURES = "features"
TEXT = "text"
DATASETS = "datasets"
MODELS = "models"
NETWORKS = "networks"
WORK = "work"
CACHE = "cache"
REPORTS = "reports"
RUNS = "runs"
NETWORK = "network.json"

COMMIT_NAME = re.compile(r"[0-9a-f]{16}")
NETWORK_NAME = re.compile(r"[0-9a-f]{64}\.pb")

# A half-written file younger than this may have a living writer.
GRACE_SECONDS = 3600.0

_COMPACTING = "compact-"


def table_roots(store: Path) -> list[Path]:
    """The directories of a store that may be tables, datasets and models among them."""
    parents = (store / name for name in (FEATURES, TEXT, DATASETS, MODELS))
    return [path for parent in parents if parent.is_dir() for path in sorted(parent.iterdir()) if path.is_dir()]


def files_below(root: Path) -> Iterator[Path]:
    """Every file below a directory; links are files and lead nowhere."""
    if isinstance(root, ObjectPath):
        yield from (path for path, _ in root.listing())
        return
    for directory, below, names in os.walk(root):
        links = [name for name in below if (Path(directory) / name).is_symlink()]
        yield from (Path(directory) / name for name in sorted([*names, *links]))


def is_temporary(path: Path) -> bool:
    """Whether a file is one that is being written, or was when its writer died."""
    return path.name.startswith(TEMP_PREFIX)


def compaction_plan(store: Path, table: str, commit: str) -> Path:
    """Where a compaction notes which shards it has written; its table's directory and its commit's name it."""
    return store / WORK / f"{_COMPACTING}{table}-{commit}"


def planned_commits(store: Path) -> dict[str, Path]:
    """The plans of running or killed jobs, by the `<table>-<commit>` that they are to make."""
    plans = (store / WORK).iterdir() if (store / WORK).is_dir() else iter(())
    return {plan.name.removeprefix(_COMPACTING): plan for plan in plans if plan.is_dir()}


def newest_change(path: Path) -> float:
    """When a file, or anything in a directory, last changed: seconds since 1970; 0 for what is gone."""
    if isinstance(path, ObjectPath):
        found = [listed for _, listed in path.listing()] or [listed for listed in (path.look(),) if listed]
        return max((listed.modified_ns / 1e9 for listed in found), default=0.0)
    newest = 0.0
    for one in (path, *(path.rglob("*") if path.is_dir() else ())):
        with contextlib.suppress(FileNotFoundError):
            newest = max(newest, one.lstat().st_mtime)
    return newest
