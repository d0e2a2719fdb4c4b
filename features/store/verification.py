"""Verifies a store: recomputes the checksum of every file that manifests reference, and lists orphan files.

    marker, table configs, logs, manifests → shards, indexes, vocabularies, transforms, catalogs, extractors → orphans

Files that only superseded commits reference are checked if they exist. They may be missing.
"""

import contextlib
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.io.atomic_files import hash_file, hold_local_copy
from features.io.file_trees import files_below, newest_change
from features.io.locations import parse_location
from features.io.temporary_names import is_temporary
from features.store.commit_log import ENTRY_NAME, LOG, MANIFEST_NAME, MANIFESTS, list_paths
from features.store.corruption import record_corruption
from features.store.layout import (
    CACHE,
    COMMIT_NAME,
    DATASETS,
    EXTRACTOR_NAME,
    EXTRACTOR_RECORD,
    FEATURES,
    FROZEN_EXTRACTORS,
    GRACE_SECONDS,
    LEASES,
    MODELS,
    RECIPE,
    REPORTS,
    RUNS,
    WORK,
    planned_commits,
    table_roots,
)
from features.store.leases import is_writing, table_name
from features.store.merge import as_keys, key_column
from features.store.shards import find_shards, index_dtype, read_rows, tensor_fields, value_span
from features.store.store import MARKER, MARKER_BYTES, STORE_VERSION, open_store
from features.store.table_history import MANIFEST_KINDS, CorruptFile, Findings, TableHistory, read_histories
from schemas.errors import CaptError, CorruptFileError
from schemas.manifests import FeatureMetadata, Manifest, Shard
from schemas.options.store import StoreVerify
from schemas.strict_json import parse_json
from schemas.table_config import CaptionTableConfig, FeatureTableConfig
from schemas.tables import CAPTIONS, KEY_BYTES, Table
from schemas.terminal.progress import show_progress

_FILES_PER_BATCH = 1024
_UNCHECKED = (WORK, CACHE, LEASES)

_log = logging.getLogger("capt.store")


@dataclass(frozen=True)
class Verification:
    """The numbers of live shards, of their rows, of checked files and of their bytes, and the files with problems.

    `missing` files, which live commits reference, and `orphaned` files are paths within the store.
    """

    shards: int
    rows: int
    files: int
    bytes: int
    corrupt: tuple[CorruptFile, ...]
    missing: tuple[str, ...]
    orphaned: tuple[str, ...]
    seconds: float

    @property
    def is_healthy(self) -> bool:
        """Whether nothing is corrupt or missing."""
        return not (self.corrupt or self.missing)

    def to_dict(self) -> dict[str, Any]:
        """Returns the summary that `capt store verify --json` prints."""
        return {
            "shards": self.shards,
            "rows": self.rows,
            "bytes": self.bytes,
            "files": self.files,
            "damaged": sorted({file.path for file in self.corrupt}),
            "missing": sorted(self.missing),
            "orphaned": sorted(self.orphaned),
            "seconds": round(self.seconds, 3),
        }


def verify_store(options: StoreVerify) -> dict[str, Any]:
    """Verifies a store, and records corrupt and missing files for the jobs that repair them.

    Returns:
        `shards` and `rows`, the numbers of live ones; `files` and `bytes`, the number and size of the files that were
        read; the lists of paths `damaged`, `missing` and `orphaned`; and `seconds`.

    Raises:
        CorruptFileError: A file is corrupt or missing. The error has the same summary.
        StoreError: The store does not exist, or has a newer format version.
    """
    root = parse_location(options.store)
    verification = verify(root)
    summary = verification.to_dict()
    damaged, missing = summary["damaged"], summary["missing"]
    record_corruption(root, [*damaged, *missing])
    for file in verification.corrupt:
        _log.warning("%s: corrupt: expected %s, got %s", file.path, file.expected, file.got)
    for path in missing:
        _log.warning("%s: missing", path)
    if not verification.is_healthy:
        raise CorruptFileError(
            f"{len(damaged)} files are corrupt and {len(missing)} are missing, such as {[*damaged, *missing][0]}",
            location=options.store,
            hint="Run the same prepare commands again.",
            summary=summary,
        )
    return summary


def verify(store: Path) -> Verification:
    """Verifies the store in a directory; raises StoreError if it does not exist or has a newer format version."""
    started = time.monotonic()
    findings = Findings(store)
    _check_marker(store, findings)
    tables = read_histories(table_roots(store), findings)
    files, size = _check_files(findings, _list_checks(store, tables))
    orphaned = list(_find_orphans(store, tables))
    if findings.missing or orphaned:
        orphaned = _exclude_concurrent_changes(findings, orphaned)
    shards = [shard for table in tables for shard in table.shards()]
    return Verification(
        shards=len(shards),
        rows=sum(shard.rows for shard in shards),
        files=files,
        bytes=size,
        corrupt=tuple(findings.corrupt),
        missing=tuple(dict.fromkeys(findings.missing)),
        orphaned=tuple(orphaned),
        seconds=time.monotonic() - started,
    )


def _check_marker(store: Path, findings: Findings) -> None:
    """Raises StoreError if the store does not exist or has a newer format. A corrupt marker is a finding."""
    try:
        data = (store / MARKER).read_bytes()
    except OSError:
        data = b""
    try:
        version = int(parse_json(data)["version"])
    except (ValueError, KeyError, TypeError, OverflowError):
        version = 0
    if version > STORE_VERSION or not any((store / kind).is_dir() for kind in MANIFEST_KINDS):
        open_store(store)
    if not data:
        findings.add_missing(store / MARKER)
    elif data != MARKER_BYTES:
        findings.add_corrupt(store / MARKER, MARKER_BYTES.decode(), data)


def _exclude_concurrent_changes(findings: Findings, orphaned: list[str]) -> list[str]:
    """Removes findings that commits, compactions or collections since the start explain; returns the orphans left."""
    store = findings.store
    names = {table_name(store, one.root): one for one in read_histories(table_roots(store), Findings(store))}
    referenced = {f"{name}/{path}" for name, one in names.items() for path in list_paths(one.manifests.values())}
    live = {f"{name}/{path}" for name, one in names.items() for path in list_paths(one.live_manifests())}
    findings.missing = [path for path in findings.missing if path not in referenced or path in live]
    return [path for path in orphaned if path not in referenced and (store / path).exists()]


# === Referenced files ===


@dataclass(frozen=True)
class _Check:
    """One file to check, by path within the store; `find_problem` returns another problem, empty for none."""

    path: str
    sha256: str
    bytes: int | None  # None if the size is unknown
    is_required: bool  # whether it is an error if the file is missing
    find_problem: Callable[[Path], str] | None = None


def _list_checks(store: Path, tables: list[TableHistory]) -> list[_Check]:
    """Returns one check per file and checksum. It is required if any manifest requires it."""
    checks = []
    for table, digest, manifest in ((one, *item) for one in tables for item in one.manifests.items()):
        name, is_live = table_name(store, table.root), digest in table.live
        shard_checks = _shard_checks(table, manifest)
        for entry in manifest.entries():
            find_problem = shard_checks.get(entry.path)
            checks.append(_Check(f"{name}/{entry.path}", entry.sha256, entry.bytes, is_live, find_problem))
    facts = [manifest.facts for table in tables for manifest in table.live_manifests()]
    live = {one.network_file for one in facts if isinstance(one, FeatureMetadata) and one.network_file}
    existing = {path.name for path in (store / FROZEN_EXTRACTORS).glob("*") if EXTRACTOR_NAME.fullmatch(path.name)}
    checks += [
        _Check(f"{FROZEN_EXTRACTORS}/{name}", Path(name).stem, None, name in live) for name in sorted(live | existing)
    ]
    found: dict[tuple[str, str], _Check] = {}
    for check in checks:
        known = found.setdefault((check.path, check.sha256), check)
        if check.is_required and not known.is_required:
            found[check.path, check.sha256] = check
    return list(found.values())


def _check_files(findings: Findings, checks: list[_Check]) -> tuple[int, int]:
    """Checks files in threads; returns the number of files and bytes that were read."""
    total, waiting, read = sum(check.bytes or 0 for check in checks), iter(checks), Counter[str]()
    with (
        show_progress("verifying", total >> 20, "MiB", lambda: (read["bytes"] >> 20, "")),
        ThreadPoolExecutor(max(2, os.cpu_count() or 1), thread_name_prefix="verify") as pool,
    ):
        while batch := list(islice(waiting, _FILES_PER_BATCH)):
            results = pool.map(partial(_check_file, findings.store), batch)
            for check, (size, problem) in zip(batch, results, strict=True):
                if size is not None:
                    read.update(files=1, bytes=size)
                elif check.is_required:
                    findings.add_missing(findings.store / check.path)
                if problem:
                    findings.add_corrupt(findings.store / check.path, *problem)
    return read["files"], read["bytes"]


def _check_file(store: Path, check: _Check) -> tuple[int | None, tuple[str, str] | None]:
    """Returns a file's size (None if it is missing) and, if it is corrupt, the expected and the actual content."""
    try:
        with hold_local_copy(store / check.path) as here:
            size, got = here.stat().st_size, hash_file(here)
            if got != check.sha256:
                return size, (f"SHA-256 {check.sha256}", got)
            if check.bytes not in (None, size):
                return size, (f"{check.bytes} bytes", f"{size} bytes")
            problem = check.find_problem(here) if check.find_problem else ""
        return size, ("the values in the manifest", problem) if problem else None
    except FileNotFoundError:
        return None, None
    except (OSError, ValueError) as error:
        return 0, ("a readable file", f"{type(error).__name__}: {error}")


# === Shards compared with their manifests ===


def _shard_checks(table: TableHistory, manifest: Manifest) -> dict[str, Callable[[Path], str]]:
    """Returns the checks of the files that contain a shard's keys, by path."""
    table_config, facts = table.table_config, manifest.facts
    if isinstance(table_config, FeatureTableConfig) and isinstance(facts, FeatureMetadata):
        rows = table_config.table(facts.shape)
        return {shard.index.path: partial(_check_index, shard, rows) for shard in manifest.shards if shard.index}
    if isinstance(table_config, CaptionTableConfig):
        return {shard.data.path: partial(_check_captions, shard, table_config) for shard in manifest.shards}
    return {}


def _check_index(shard: Shard, table: Table, path: Path) -> str:
    dtype = index_dtype(table)
    if path.stat().st_size != shard.rows * dtype.itemsize:
        return f"{path.stat().st_size} bytes for {shard.rows} rows"
    index = np.fromfile(path, dtype)
    for field in tensor_fields(table):
        offsets, sizes = value_span(index, field)
        if int((offsets + sizes).max()) > shard.data.bytes:
            return f"an offset beyond the shard's {shard.data.bytes} bytes"
    return _check_keys(index["key"], shard)


def _check_captions(shard: Shard, table_config: CaptionTableConfig, path: Path) -> str:
    if table_config.format == "parquet":
        column = pq.read_table(path, columns=["key"]).column("key").combine_chunks()
        return _check_keys(key_column(column), shard)
    keys = b"".join(row["key"] for row in read_rows(path, CAPTIONS, table_config.format))
    return _check_keys(np.frombuffer(keys, np.uint8).reshape(-1, KEY_BYTES), shard)


def _check_keys(keys: NDArray[np.uint8], shard: Shard) -> str:
    """Returns the problem of a shard's keys; empty for none."""
    if len(keys) != shard.rows:
        return f"{len(keys)} rows instead of {shard.rows}"
    ordered = as_keys(keys)
    if not (ordered[:-1] < ordered[1:]).all():
        return "keys out of order"
    if (keys[0].tobytes().hex(), keys[-1].tobytes().hex()) != (shard.first_key, shard.last_key):
        return f"keys from {keys[0].tobytes().hex()[:8]}… to {keys[-1].tobytes().hex()[:8]}…"
    if not (find_shards(keys, shard.count) == shard.number).all():
        return f"keys of another shard than {shard.number} of {shard.count}"
    return ""


# === Orphan files ===


def _find_orphans(store: Path, tables: list[TableHistory]) -> Iterator[str]:
    by_root = {table.root: table for table in tables}
    referenced = {root: list_paths(table.manifests.values()) for root, table in by_root.items()}
    planned = planned_commits(store)
    is_open = {root: _is_open(store, table) for root, table in by_root.items()}
    for path in files_below(store):
        parts = path.relative_to(store).parts
        root = store.joinpath(*parts[:2])
        if parts[0] in _UNCHECKED:
            continue
        if is_temporary(path):
            is_known = time.time() - newest_change(path) < GRACE_SECONDS
        elif root in by_root and len(parts) > 2:
            name, commit = "/".join(parts[2:]), COMMIT_NAME.fullmatch(parts[2])
            is_known = name in referenced[root] or _is_table_file(by_root[root], name)
            is_known = is_known or bool(commit and (is_open[root] or f"{root.name}-{parts[2]}" in planned))
        else:
            is_extractor = parts[0] == FROZEN_EXTRACTORS and EXTRACTOR_NAME.fullmatch("/".join(parts[1:]))
            is_known = parts == (MARKER,) or bool(is_extractor) or (parts[0] == DATASETS and parts[2:3] == (REPORTS,))
        if not is_known:
            yield "/".join(parts)


def _is_table_file(table: TableHistory, name: str) -> bool:
    """Returns whether a file belongs to a table without being referenced, such as its log."""
    directory, _, rest = name.partition("/")
    if directory in (LOG, MANIFESTS):
        return bool((ENTRY_NAME if directory == LOG else MANIFEST_NAME).fullmatch(rest))
    files = {FEATURES: (RECIPE, EXTRACTOR_RECORD), DATASETS: (), MODELS: ()}.get(table.kind, (RECIPE,))
    additional = {DATASETS: REPORTS, MODELS: RUNS}.get(table.kind)
    return name in files or (directory == additional and bool(rest))


def _is_open(store: Path, table: TableHistory) -> bool:
    """Returns whether a directory of the table may belong to a commit in progress or with a lost manifest."""
    if not table.is_complete:
        return True
    with contextlib.suppress(CaptError):
        return is_writing(store, table_name(store, table.root))
    return False
