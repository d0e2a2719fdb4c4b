"""Verification: every byte that a store's manifests name, read again and held against its checksum.

marker, recipes, logs, manifests → shards, indexes, vocabularies, transforms, catalogs, networks → what nothing names

Files that only replaced commits name are checked while they are there; that they are gone is no finding.
"""

import contextlib
import logging
import os
import time
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
from features.store.commit_log import ENTRY_NAME, LOG, MANIFEST_NAME, MANIFESTS
from features.store.corruption import record_corruption
from features.store.layout import (
    CACHE,
    COMMIT_NAME,
    DATASETS,
    FEATURES,
    GRACE_SECONDS,
    LEASES,
    MODELS,
    NETWORK,
    NETWORK_NAME,
    NETWORKS,
    RECIPE,
    REPORTS,
    RUNS,
    WORK,
    is_temporary,
    planned_commits,
    table_roots,
)
from features.store.leases import is_writing, table_name
from features.store.merge import as_keys, key_column
from features.store.shards import find_shards, index_dtype, read_rows, tensor_fields, value_span
from features.store.store import MARKER, MARKER_BYTES, STORE_VERSION, open_store
from features.store.table_history import KINDS, CorruptFile, Findings, TableHistory, read_history
from schemas.errors import CaptError, CorruptFileError
from schemas.manifests import FeatureMetadata, Manifest, Shard
from schemas.options.store import StoreVerify
from schemas.strict_json import parse_json
from schemas.table_config import CaptionTableConfig, FeatureTableConfig
from schemas.tables import CAPTIONS, KEY_BYTES, Table
from schemas.terminal.progress import show_progress

_AT_ONCE = 1024
_UNCHECKED = (WORK, CACHE, LEASES)

_log = logging.getLogger("capt.store")


@dataclass(frozen=True)
class Verification:
    """What a verification found.

    Args:
        shards, rows: int. Live shards and the rows in them.
        files, bytes: int. What was read and held against a checksum.
        damaged: tuple of Damage. Files that are not what they should be.
        missing: tuple of str. Paths within the store of files that live commits name and that are not there.
        foreign: tuple of str. Paths of files that nothing names.
        seconds: float. How long it took.
    """

    shards: int
    rows: int
    files: int
    bytes: int
    damaged: tuple[CorruptFile, ...]
    missing: tuple[str, ...]
    foreign: tuple[str, ...]
    seconds: float

    @property
    def is_healthy(self) -> bool:
        """Whether nothing is damaged or missing."""
        return not (self.damaged or self.missing)

    def figures(self) -> dict[str, Any]:
        """What `--json` prints: the counts, and the paths by finding."""
        return {
            "shards": self.shards,
            "rows": self.rows,
            "bytes": self.bytes,
            "files": self.files,
            "damaged": sorted({damage.path for damage in self.damaged}),
            "missing": sorted(self.missing),
            "foreign": sorted(self.foreign),
            "seconds": round(self.seconds, 3),
        }


def verify_store(options: StoreVerify) -> dict[str, Any]:
    """Read a store again and hold it against its checksums; what is wrong is noted for the jobs that heal it.

    Args:
        options: The store.

    Returns:
        `shards`, `rows` (live ones), `files`, `bytes` (read), the lists of paths `damaged`, `missing` and `foreign`,
        and `seconds`.

    Raises:
        CorruptFileError: something is damaged or missing; it carries the same figures.
        StoreError: there is no store, or one that this version cannot read.
    """
    root = parse_location(options.store)
    found = verify(root)
    figures = found.figures()
    record_corruption(root, [*figures["damaged"], *figures["missing"]])
    for damage in found.damaged:
        _log.warning("%s: damaged: expected %s, got %s", damage.path, damage.expected, damage.got)
    for path in figures["missing"]:
        _log.warning("%s: missing", path)
    if not found.is_healthy:
        first = [*figures["damaged"], *figures["missing"]][0]
        raise CorruptFileError(
            f"damaged files: {len(figures['damaged'])}, missing: {len(figures['missing'])}, such as {first}",
            location=options.store,
            hint="run the same prepare commands again",
            summary=figures,
        )
    return figures


def verify(store: Path) -> Verification:
    """What is wrong with the store in a directory; StoreError where this version cannot tell."""
    started = time.monotonic()
    _check_readable(store)
    findings = Findings(store)
    _check_marker(store, findings)
    tables = _histories(store, findings)
    files, size = _Reading(store, findings).run(_checks(store, tables))
    foreign = list(_foreign(store, tables))
    if findings.missing or foreign:
        _look_again(findings, foreign)
    shards = [shard for table in tables for shard in table.shards()]
    return Verification(
        shards=len(shards),
        rows=sum(shard.rows for shard in shards),
        files=files,
        bytes=size,
        damaged=tuple(findings.damaged),
        missing=tuple(dict.fromkeys(findings.missing)),
        foreign=tuple(foreign),
        seconds=time.monotonic() - started,
    )


def _check_readable(store: Path) -> None:
    """StoreError where there is no store, or a newer one."""
    looks_like_one = any((store / kind).is_dir() for kind in KINDS)
    if not looks_like_one or _version(_marker(store)) > STORE_VERSION:
        open_store(store)


def _check_marker(store: Path, findings: Findings) -> None:
    data = _marker(store)
    if not data:
        findings.miss(store / MARKER)
    elif data != MARKER_BYTES:
        findings.damage(store / MARKER, MARKER_BYTES.decode(), data)


def _marker(store: Path) -> bytes:
    try:
        return (store / MARKER).read_bytes()
    except OSError:
        return b""


def _version(marker: bytes) -> int:
    try:
        return int(parse_json(marker)["version"])
    except (ValueError, KeyError, TypeError, OverflowError):
        return 0


def _histories(store: Path, findings: Findings) -> list[TableHistory]:
    return [table for root in table_roots(store) if (table := read_history(root, findings))]


def _look_again(findings: Findings, foreign: list[str]) -> None:
    """Take back what has been committed, or replaced and collected, since the histories were read."""
    now = _histories(findings.store, Findings(findings.store))
    prefixes = {table_name(findings.store, table.root): table for table in now}
    named = {f"{prefix}/{path}" for prefix, table in prefixes.items() for path in table.paths()}
    live = {f"{prefix}/{path}" for prefix, table in prefixes.items() for path in table.live_paths()}
    findings.missing = [path for path in findings.missing if path not in named or path in live]
    foreign[:] = [path for path in foreign if path not in named and (findings.store / path).exists()]


# === Files that manifests name ===


@dataclass(frozen=True)
class _Check:
    """One file to read.

    Args:
        path: str. Within the store.
        sha256: str. What its bytes must hash to.
        bytes: int or None. Its size; None where nothing says.
        is_needed: bool. Whether it is a finding that the file is not there.
        examine: function of its path, or None. What else is wrong with a file whose bytes are right; empty for nothing.
    """

    path: str
    sha256: str
    bytes: int | None
    is_needed: bool
    examine: Callable[[Path], str] | None = None


def _checks(store: Path, tables: list[TableHistory]) -> list[_Check]:
    """One check for each file and checksum, needed if any manifest needs it."""
    found: dict[tuple[str, str], _Check] = {}
    for check in (*(one for table in tables for one in _table_checks(store, table)), *_network_checks(store, tables)):
        known = found.get((check.path, check.sha256))
        if known is None or (check.is_needed and not known.is_needed):
            found[check.path, check.sha256] = check
    return list(found.values())


def _table_checks(store: Path, table: TableHistory) -> Iterator[_Check]:
    prefix = table_name(store, table.root)
    for digest, manifest in table.manifests.items():
        examinations = _examinations(table, manifest)
        for entry in manifest.entries():
            examine = examinations.get(entry.path)
            yield _Check(f"{prefix}/{entry.path}", entry.sha256, entry.bytes, digest in table.live, examine)


def _network_checks(store: Path, tables: list[TableHistory]) -> Iterator[_Check]:
    facts = [manifest.facts for table in tables for manifest in table.live_manifests()]
    live = {one.network for one in facts if isinstance(one, FeatureMetadata)}
    lying = {path.stem for path in (store / NETWORKS).glob("*.pb") if NETWORK_NAME.fullmatch(path.name)}
    for digest in sorted(live | lying):
        yield _Check(f"{NETWORKS}/{digest}.pb", digest, None, digest in live)


class _Reading:
    """Reads files in a few threads and notes what is wrong with them."""

    def __init__(self, store: Path, findings: Findings) -> None:
        self._store = store
        self._findings = findings
        self._files = 0
        self._bytes = 0

    def run(self, checks: list[_Check]) -> tuple[int, int]:
        """Do all checks; how many files and bytes were read."""
        total, waiting = sum(check.bytes or 0 for check in checks), iter(checks)
        with (
            show_progress("verifying", total >> 20, "MiB", lambda: (self._bytes >> 20, "")),
            ThreadPoolExecutor(max(2, os.cpu_count() or 1), thread_name_prefix="verify") as pool,
        ):
            while some := list(islice(waiting, _AT_ONCE)):
                for check, (size, problem) in zip(some, pool.map(self._read, some), strict=True):
                    self._enter(check, size, problem)
        return self._files, self._bytes

    def _enter(self, check: _Check, size: int | None, problem: tuple[str, str] | None) -> None:
        if size is None:
            if check.is_needed:
                self._findings.miss(self._store / check.path)
            return
        self._files += 1
        self._bytes += size
        if problem:
            self._findings.damage(self._store / check.path, *problem)

    def _read(self, check: _Check) -> tuple[int | None, tuple[str, str] | None]:
        """The size of a file (None where it is not there), and what was expected and found where that differs."""
        path = self._store / check.path
        try:
            with hold_local_copy(path) as here:
                size, got = here.stat().st_size, hash_file(here)
                if got != check.sha256:
                    return size, (f"SHA-256 {check.sha256}", got)
                if check.bytes not in (None, size):
                    return size, (f"{check.bytes} bytes", f"{size} bytes")
                problem = check.examine(here) if check.examine else ""
            return size, ("what its manifest says", problem) if problem else None
        except FileNotFoundError:
            return None, None
        except (OSError, ValueError) as error:
            return 0, ("a file that can be read", f"{type(error).__name__}: {error}")


# === Shards against what manifests say of them ===


def _examinations(table: TableHistory, manifest: Manifest) -> dict[str, Callable[[Path], str]]:
    """How each file that holds a shard's keys is held against what the manifest says, by path."""
    table_config, facts = table.table_config, manifest.facts
    if isinstance(table_config, FeatureTableConfig) and isinstance(facts, FeatureMetadata):
        rows = table_config.table(facts.shape)
        indexed = {shard.index.path: shard for shard in manifest.shards if shard.index}
        return {path: partial(_index_problem, shard, rows) for path, shard in indexed.items()}
    if isinstance(table_config, CaptionTableConfig):
        shards = {shard.data.path: shard for shard in manifest.shards}
        return {path: partial(_captions_problem, shard, table_config) for path, shard in shards.items()}
    return {}


def _index_problem(shard: Shard, table: Table, path: Path) -> str:
    """What is wrong with an index of a shard; empty for nothing."""
    dtype = index_dtype(table)
    if path.stat().st_size != shard.rows * dtype.itemsize:
        return f"{path.stat().st_size} bytes for {shard.rows} rows"
    index = np.fromfile(path, dtype)
    for field in tensor_fields(table):
        places, sizes = value_span(index, field)
        if int((places + sizes).max()) > shard.data.bytes:
            return f"a place beyond the shard's {shard.data.bytes} bytes"
    return _keys_problem(index["key"], shard)


def _captions_problem(shard: Shard, table_config: CaptionTableConfig, path: Path) -> str:
    """What is wrong with the keys of a shard of captions; empty for nothing."""
    if table_config.format == "parquet":
        column = pq.read_table(path, columns=["key"]).column("key").combine_chunks()
        return _keys_problem(key_column(column), shard)
    keys = b"".join(row["key"] for row in read_rows(path, CAPTIONS, table_config.format))
    return _keys_problem(np.frombuffer(keys, np.uint8).reshape(-1, KEY_BYTES), shard)


def _keys_problem(keys: NDArray[np.uint8], shard: Shard) -> str:
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


# === Files that nothing names ===


def _foreign(store: Path, tables: list[TableHistory]) -> Iterator[str]:
    by_root = {table.root: table for table in tables}
    named = {root: table.paths() for root, table in by_root.items()}
    accounted = {root: _accounted_commits(store, table) for root, table in by_root.items()}
    for path in files_below(store):
        parts = path.relative_to(store).parts
        root = store.joinpath(*parts[:2])
        if parts[0] in _UNCHECKED:
            continue
        if is_temporary(path):
            is_ours = time.time() - newest_change(path) < GRACE_SECONDS
        elif root in by_root and len(parts) > 2:
            name = "/".join(parts[2:])
            is_ours = name in named[root] or _belongs(by_root[root], name) or accounted[root](parts[2])
        else:
            is_ours = parts == (MARKER,) or (parts[0] == NETWORKS and _matches(NETWORK_NAME, parts[1:]))
            is_ours = is_ours or (parts[0] == DATASETS and parts[2:3] == (REPORTS,))
        if not is_ours:
            yield "/".join(parts)


def _belongs(table: TableHistory, name: str) -> bool:
    """Whether a file is of those that a table has beside what its manifests name."""
    directory, _, rest = name.partition("/")
    if directory in (LOG, MANIFESTS):
        return _matches(ENTRY_NAME if directory == LOG else MANIFEST_NAME, (rest,))
    notes = {FEATURES: (RECIPE, NETWORK), DATASETS: (), MODELS: ()}.get(table.kind, (RECIPE,))
    beside = {DATASETS: REPORTS, MODELS: RUNS}.get(table.kind)
    return name in notes or (directory == beside and bool(rest))


def _accounted_commits(store: Path, table: TableHistory) -> Callable[[str], bool]:
    """Tells of a directory whether it is, or may be, of a commit that is being made or whose manifest is damaged."""
    planned = planned_commits(store)
    is_open = not table.is_whole
    with contextlib.suppress(CaptError):
        is_open = is_open or is_writing(store, table_name(store, table.root))

    def is_accounted(directory: str) -> bool:
        return bool(COMMIT_NAME.fullmatch(directory)) and (is_open or f"{table.root.name}-{directory}" in planned)

    return is_accounted


def _matches(pattern: Any, parts: tuple[str, ...]) -> bool:
    return len(parts) == 1 and bool(pattern.fullmatch(parts[0]))
