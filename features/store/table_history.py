"""Histories: what a table's recipe, log and manifests say, as far as they can be read, and what is wrong with them.

Opening a table refuses one that is damaged; this reads what is left of it.
"""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from features.io.atomic_files import hash_file
from features.store.commit_log import LOG, MANIFEST_NAME, MANIFESTS, CommitLog, find_blocking_manifests
from features.store.layout import DATASETS, FEATURES, MODELS, NETWORK, NETWORKS, RECIPE, TEXT
from schemas.errors import CaptError, CorruptFileError
from schemas.manifests import FeatureMetadata, Manifest, Shard
from schemas.strict_json import parse_json
from schemas.table_config import SHORT_FINGERPRINT, CaptionTableConfig, FeatureTableConfig, canonical_json

KINDS = {FEATURES: "features", TEXT: "captions", DATASETS: "dataset", MODELS: "model"}

_RECIPES: dict[str, type[FeatureTableConfig] | type[CaptionTableConfig]] = {
    FEATURES: FeatureTableConfig,
    TEXT: CaptionTableConfig,
}


@dataclass(frozen=True)
class CorruptFile:
    """A file that is not what it should be: its path within the store, what was expected and what was found."""

    path: str
    expected: str
    got: str


@dataclass
class Findings:
    """What is wrong with a store.

    Args:
        store: Path. The store's directory; paths are within it.
        damaged: list of Damage. Files that are not what they should be.
        missing: list of str. Files that are named and not there.
    """

    store: Path
    damaged: list[CorruptFile] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def damage(self, path: Path, expected: str, got: str | bytes) -> None:
        """Note a damaged file."""
        text = got if isinstance(got, str) else got.decode(errors="backslashreplace")
        self.damaged.append(CorruptFile(path.relative_to(self.store).as_posix(), expected, text))

    def miss(self, path: Path) -> None:
        """Note a missing file."""
        self.missing.append(path.relative_to(self.store).as_posix())


@dataclass
class TableHistory:
    """What one table's recipe, log and manifests say, as far as they can be read.

    Args:
        root: Path. The table's directory.
        fingerprint: str. What its manifests call it; empty where the recipe is damaged.
        table_config: the table's recipe; None for a dataset or model, or where it is damaged.
        manifests: dict. The manifests that could be read, by digest, oldest first; those that no log entry names last.
        live: set of str. Digests that the log names and no manifest replaces.
        is_whole: bool. Whether all of the log and the manifests could be read.
    """

    root: Path
    fingerprint: str = ""
    table_config: FeatureTableConfig | CaptionTableConfig | None = None
    manifests: dict[str, Manifest] = field(default_factory=dict)
    live: set[str] = field(default_factory=set)
    is_whole: bool = True

    @property
    def kind(self) -> str:
        """`features`, `text`, `datasets` or `models`."""
        return self.root.parent.name

    def live_manifests(self) -> list[Manifest]:
        """The manifests that no other replaces, oldest first."""
        return [manifest for digest, manifest in self.manifests.items() if digest in self.live]

    def live_paths(self) -> set[str]:
        """The paths within the table that live manifests name."""
        return {entry.path for manifest in self.live_manifests() for entry in manifest.entries()}

    def paths(self) -> set[str]:
        """The paths within the table that any manifest names."""
        return {entry.path for manifest in self.manifests.values() for entry in manifest.entries()}

    def shards(self) -> list[Shard]:
        """The live shards, each once."""
        named = {shard.data.path: shard for manifest in self.live_manifests() for shard in manifest.shards}
        return list(named.values())


def read_history(root: Path, findings: Findings) -> TableHistory | None:
    """The history of the table in a directory, what is wrong with it noted; None where the directory is no table."""
    if not any((root / part).exists() for part in (LOG, MANIFESTS, RECIPE)):
        return None
    table = TableHistory(root)
    if table.kind in (DATASETS, MODELS):
        table.fingerprint = root.name
    else:
        _read_recipe(table, findings)
    logged = _read_log(table, findings)
    _read_manifests(table, logged, findings)
    replaced = {digest for one in logged if one in table.manifests for digest in table.manifests[one].replaces}
    table.live = {digest for digest in logged if digest in table.manifests} - replaced
    if table.kind == FEATURES:
        _check_network(table, findings)
    return table


def _read_recipe(table: TableHistory, findings: Findings) -> None:
    path = table.root / RECIPE
    if not path.is_file():
        findings.miss(path)
        return
    data = path.read_bytes()
    fingerprint = hashlib.sha256(data).hexdigest()
    if fingerprint[:SHORT_FINGERPRINT] != table.root.name:
        findings.damage(path, f"SHA-256 {table.root.name}…", fingerprint)
        return
    table.fingerprint = fingerprint
    try:
        table.table_config = _RECIPES[table.kind].model_validate_json(data)
    except ValidationError as error:
        findings.damage(path, "a recipe", error.errors()[0]["msg"])


def _read_log(table: TableHistory, findings: Findings) -> list[str]:
    """The digests that the log names, oldest first."""
    log, digests = CommitLog(table.root), []
    for number in range(1, log.last() + 1):
        path = log.entry_path(number)
        try:
            digests.append(log.entry(number))
        except CaptError:
            table.is_whole = False
            if path.is_file():
                findings.damage(path, "the name of a manifest", path.read_bytes())
            else:
                findings.miss(path)
    return digests


def _read_manifests(table: TableHistory, logged: list[str], findings: Findings) -> None:
    directory = table.root / MANIFESTS
    lying = {path.stem for path in directory.glob("*.json") if MANIFEST_NAME.fullmatch(path.name)}
    for digest in dict.fromkeys([*logged, *sorted(lying)]):
        path = directory / f"{digest}.json"
        manifest = _read_manifest(table, path, findings)
        if manifest:
            table.manifests[digest] = manifest
            _check_owner(table, path, manifest, findings)
    # One that is of no account any more may be gone: whoever heals a table deletes it.
    blocking = find_blocking_manifests(logged, table.manifests)
    for digest in blocking:
        if digest not in lying:
            findings.miss(directory / f"{digest}.json")
    table.is_whole = table.is_whole and not blocking and lying <= set(table.manifests)


def _read_manifest(table: TableHistory, path: Path, findings: Findings) -> Manifest | None:
    if not path.is_file():
        return None
    got = hash_file(path)
    if got != path.stem:
        findings.damage(path, f"SHA-256 {path.stem}", got)
        return None
    try:
        return CommitLog(table.root).manifest(path.stem)
    except CorruptFileError as error:
        findings.damage(path, "a manifest", error.message)
        return None


def _check_owner(table: TableHistory, path: Path, manifest: Manifest, findings: Findings) -> None:
    if table.fingerprint and manifest.table != table.fingerprint:
        findings.damage(path, f"a manifest of {table.fingerprint}", f"one of {manifest.table}")
    if manifest.facts.kind not in (KINDS[table.kind], "dropped"):
        findings.damage(path, f"a manifest of {KINDS[table.kind]}", f"one of {manifest.facts.kind}")


def _check_network(table: TableHistory, findings: Findings) -> None:
    """The table's note of its network is held against the manifests and the networks there are."""
    path = table.root / NETWORK
    if not path.is_file():
        if table.live:
            findings.miss(path)
        return
    data = path.read_bytes()
    try:
        note = parse_json(data)
        network, shape = str(note["network"]), tuple(note["shape"])
        is_whole = canonical_json({"network": network, "shape": shape}) == data
    except (ValueError, KeyError, TypeError):
        network, shape, is_whole = "", (), False
    facts = [one.facts for one in table.manifests.values() if isinstance(one.facts, FeatureMetadata)]
    if not is_whole or (facts and shape not in {one.shape for one in facts}):
        findings.damage(path, "the table's network and the shape of its rows", data)
    elif not (findings.store / NETWORKS / f"{network}.pb").is_file():
        findings.miss(findings.store / NETWORKS / f"{network}.pb")
