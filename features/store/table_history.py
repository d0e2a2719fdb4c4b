"""Reads the readable parts of a table's config, log and manifests, and collects corrupt and missing files."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from features.io.atomic_files import hash_file
from features.store.commit_log import LOG, MANIFEST_NAME, MANIFESTS, CommitLog, find_blocking_manifests
from features.store.layout import DATASETS, FEATURES, MODELS, NETWORK, RECIPE, TEXT, extractor_path
from schemas.errors import CaptError, CorruptFileError
from schemas.manifests import FeatureMetadata, Manifest, Shard
from schemas.strict_json import parse_json
from schemas.table_config import SHORT_FINGERPRINT, CaptionTableConfig, FeatureTableConfig, canonical_json

MANIFEST_KINDS = {FEATURES: "features", TEXT: "captions", DATASETS: "dataset", MODELS: "model"}

_CONFIGS: dict[str, type[FeatureTableConfig] | type[CaptionTableConfig]] = {
    FEATURES: FeatureTableConfig,
    TEXT: CaptionTableConfig,
}


@dataclass(frozen=True)
class CorruptFile:
    """A corrupt file: its path within the store, the expected content and the actual one."""

    path: str
    expected: str
    got: str


@dataclass
class Findings:
    """The corrupt and missing files of a store.

    Args:
        store: The store's directory.
        corrupt: The corrupt files.
        missing: The missing files, by path within the store.
    """

    store: Path
    corrupt: list[CorruptFile] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def add_corrupt(self, path: Path, expected: str, got: str | bytes) -> None:
        """Adds a corrupt file."""
        text = got if isinstance(got, str) else got.decode(errors="backslashreplace")
        self.corrupt.append(CorruptFile(path.relative_to(self.store).as_posix(), expected, text))

    def add_missing(self, path: Path) -> None:
        """Adds a missing file."""
        self.missing.append(path.relative_to(self.store).as_posix())


@dataclass
class TableHistory:
    """The readable part of a table's config, log and manifests.

    Args:
        root: The table's directory.
        name: The name of the table in its manifests; empty if the config is corrupt.
        table_config: The table's config; None for a dataset or model, or if it is corrupt.
        manifests: The readable manifests by digest, oldest first; those without a log entry last.
        live: Digests that the log references and no manifest replaces.
        is_complete: Whether the log and all manifests could be read.
    """

    root: Path
    name: str = ""
    table_config: FeatureTableConfig | CaptionTableConfig | None = None
    manifests: dict[str, Manifest] = field(default_factory=dict)
    live: set[str] = field(default_factory=set)
    is_complete: bool = True

    @property
    def kind(self) -> str:
        """`features`, `text`, `datasets` or `models`."""
        return self.root.parent.name

    def live_manifests(self) -> list[Manifest]:
        """Returns the live manifests, oldest first."""
        return [manifest for digest, manifest in self.manifests.items() if digest in self.live]

    def live_paths(self) -> set[str]:
        """Returns the paths within the table that live manifests reference."""
        return {entry.path for manifest in self.live_manifests() for entry in manifest.entries()}

    def paths(self) -> set[str]:
        """Returns the paths within the table that any manifest references."""
        return {entry.path for manifest in self.manifests.values() for entry in manifest.entries()}

    def shards(self) -> list[Shard]:
        """Returns the live shards, each once."""
        by_path = {shard.data.path: shard for manifest in self.live_manifests() for shard in manifest.shards}
        return list(by_path.values())


def read_history(root: Path, findings: Findings) -> TableHistory | None:
    """Reads the history of the table in a directory, and adds corrupt and missing files to `findings`.

    Returns:
        The history; None if the directory is not a table.
    """
    if not any((root / part).exists() for part in (LOG, MANIFESTS, RECIPE)):
        return None
    table = TableHistory(root)
    if table.kind in (DATASETS, MODELS):
        table.name = root.name
    else:
        _read_config(table, findings)
    entries = _read_log(table, findings)
    _read_manifests(table, entries, findings)
    replaced = {digest for one in entries if one in table.manifests for digest in table.manifests[one].replaces}
    table.live = {digest for digest in entries if digest in table.manifests} - replaced
    if table.kind == FEATURES:
        _check_extractor_record(table, findings)
    return table


def _read_config(table: TableHistory, findings: Findings) -> None:
    path = table.root / RECIPE
    if not path.is_file():
        findings.add_missing(path)
        return
    data = path.read_bytes()
    fingerprint = hashlib.sha256(data).hexdigest()
    if fingerprint[:SHORT_FINGERPRINT] != table.root.name:
        findings.add_corrupt(path, f"SHA-256 {table.root.name}…", fingerprint)
        return
    table.name = fingerprint
    try:
        table.table_config = _CONFIGS[table.kind].model_validate_json(data)
    except ValidationError as error:
        findings.add_corrupt(path, "a table config", error.errors()[0]["msg"])


def _read_log(table: TableHistory, findings: Findings) -> list[str]:
    """Returns the digests in the log, oldest first."""
    log, digests = CommitLog(table.root), []
    for number in range(1, log.last() + 1):
        path = log.entry_path(number)
        try:
            digests.append(log.entry(number))
        except CaptError:
            table.is_complete = False
            if path.is_file():
                findings.add_corrupt(path, "the digest of a manifest", path.read_bytes())
            else:
                findings.add_missing(path)
    return digests


def _read_manifests(table: TableHistory, entries: list[str], findings: Findings) -> None:
    directory = table.root / MANIFESTS
    existing = {path.stem for path in directory.glob("*.json") if MANIFEST_NAME.fullmatch(path.name)}
    for digest in dict.fromkeys([*entries, *sorted(existing)]):
        path = directory / f"{digest}.json"
        manifest = _read_manifest(table, path, findings)
        if manifest:
            table.manifests[digest] = manifest
            _check_owner(table, path, manifest, findings)
    # A repair deletes unreadable manifests that are superseded, so only blocking ones are missing.
    blocking = find_blocking_manifests(entries, table.manifests)
    for digest in blocking:
        if digest not in existing:
            findings.add_missing(directory / f"{digest}.json")
    table.is_complete = table.is_complete and not blocking and existing <= set(table.manifests)


def _read_manifest(table: TableHistory, path: Path, findings: Findings) -> Manifest | None:
    if not path.is_file():
        return None
    got = hash_file(path)
    if got != path.stem:
        findings.add_corrupt(path, f"SHA-256 {path.stem}", got)
        return None
    try:
        return CommitLog(table.root).manifest(path.stem)
    except CorruptFileError as error:
        findings.add_corrupt(path, "a manifest", error.message)
        return None


def _check_owner(table: TableHistory, path: Path, manifest: Manifest, findings: Findings) -> None:
    if table.name and manifest.table != table.name:
        findings.add_corrupt(path, f"a manifest of {table.name}", f"one of {manifest.table}")
    kind = MANIFEST_KINDS[table.kind]
    if manifest.facts.kind not in (kind, "dropped"):
        findings.add_corrupt(path, f"a manifest of {kind}", f"one of {manifest.facts.kind}")


def _check_extractor_record(table: TableHistory, findings: Findings) -> None:
    """Compares `network.json`, which names the table's extractor, with the manifests and the frozen extractors."""
    path = table.root / NETWORK
    if not path.is_file():
        if table.live:
            findings.add_missing(path)
        return
    data = path.read_bytes()
    try:
        record = parse_json(data)
        network, shape = str(record["network"]), tuple(record["shape"])
        is_canonical = canonical_json({"network": network, "shape": shape}) == data
    except (ValueError, KeyError, TypeError):
        network, shape, is_canonical = "", (), False
    facts = [one.facts for one in table.manifests.values() if isinstance(one.facts, FeatureMetadata)]
    if not is_canonical or (facts and shape not in {one.shape for one in facts}):
        findings.add_corrupt(path, "the table's extractor and the shape of its rows", data)
    elif not extractor_path(findings.store, network).is_file():
        findings.add_missing(extractor_path(findings.store, network))
