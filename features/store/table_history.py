"""Reads the readable parts of a table's config, log and manifests, and collects corrupt and missing files."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from features.io.atomic_files import hash_file
from features.store.commit_log import LOG, MANIFEST_NAME, MANIFESTS, CommitLog, find_blocking_manifests
from features.store.extractor_record import ExtractorRecord
from features.store.layout import DATASETS, EXTRACTOR_RECORD, FEATURES, MODELS, RECIPE, TEXT
from schemas.errors import CaptError, CorruptFileError
from schemas.manifests import FeatureMetadata, Manifest, Shard
from schemas.table_config import IMPORTED, SHORT_FINGERPRINT, CaptionTableConfig, FeatureTableConfig

MANIFEST_KINDS = {FEATURES: "features", TEXT: "captions", DATASETS: "dataset", MODELS: "model"}


@dataclass(frozen=True)
class CorruptFile:
    """A corrupt file: its path within the store, the expected content and the actual one."""

    path: str
    expected: str
    got: str


@dataclass
class Findings:
    """The corrupt files of a store, and the missing ones by path within the store."""

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


class TableHistory:
    """The readable part of a table's config, log and manifests. Corrupt and missing files are added to `findings`.

    Attributes:
        kind: `features`, `text`, `datasets` or `models`.
        name: The name of the table in its manifests; empty if the config is corrupt.
        table_config: The table's config; None for a dataset or model, or if it is corrupt.
        manifests: The readable manifests by digest, oldest first; those without a log entry last.
        live: Digests that the log references and no manifest replaces.
        is_complete: Whether the log and all manifests could be read.
    """

    def __init__(self, root: Path, findings: Findings) -> None:
        self.root = root
        self.kind = root.parent.name
        self.name = root.name if self.kind in (DATASETS, MODELS) else ""
        self.table_config: FeatureTableConfig | CaptionTableConfig | None = None
        self.manifests: dict[str, Manifest] = {}
        self.is_complete = True
        self._findings = findings
        if self.kind in (FEATURES, TEXT):
            self._read_config()
        entries = self._read_log()
        self._read_manifests(entries)
        replaced = {digest for one in entries if one in self.manifests for digest in self.manifests[one].replaces}
        self.live = {digest for digest in entries if digest in self.manifests} - replaced
        if self.kind == FEATURES and not self._is_imported():
            self._check_extractor_record()

    def live_manifests(self) -> list[Manifest]:
        """Returns the live manifests, oldest first."""
        return [manifest for digest, manifest in self.manifests.items() if digest in self.live]

    def shards(self) -> list[Shard]:
        """Returns the live shards, each once."""
        return list({shard.data.path: shard for one in self.live_manifests() for shard in one.shards}.values())

    def _read_config(self) -> None:
        path = self.root / RECIPE
        if not path.is_file():
            self._findings.add_missing(path)
            return
        data = path.read_bytes()
        fingerprint = hashlib.sha256(data).hexdigest()
        if fingerprint[:SHORT_FINGERPRINT] != self.root.name:
            self._findings.add_corrupt(path, f"SHA-256 {self.root.name}…", fingerprint)
            return
        self.name = fingerprint
        config_type = FeatureTableConfig if self.kind == FEATURES else CaptionTableConfig
        try:
            self.table_config = config_type.model_validate_json(data)
        except ValidationError as error:
            self._findings.add_corrupt(path, "a table config", error.errors()[0]["msg"])

    def _read_log(self) -> list[str]:
        """Returns the digests in the log, oldest first."""
        log, digests = CommitLog(self.root), []
        for number in range(1, log.last() + 1):
            path = log.entry_path(number)
            try:
                digests.append(log.entry(number))
            except CaptError:
                self.is_complete = False
                if path.is_file():
                    self._findings.add_corrupt(path, "the digest of a manifest", path.read_bytes())
                else:
                    self._findings.add_missing(path)
        return digests

    def _read_manifests(self, entries: list[str]) -> None:
        directory = self.root / MANIFESTS
        existing = {path.stem for path in directory.glob("*.json") if MANIFEST_NAME.fullmatch(path.name)}
        for digest in dict.fromkeys([*entries, *sorted(existing)]):
            path = directory / f"{digest}.json"
            if not path.is_file():
                continue
            if (got := hash_file(path)) != digest:
                self._findings.add_corrupt(path, f"SHA-256 {digest}", got)
                continue
            try:
                manifest = CommitLog(self.root).manifest(digest)
            except CorruptFileError as error:
                self._findings.add_corrupt(path, "a manifest", error.message)
                continue
            self.manifests[digest] = manifest
            if self.name and manifest.table != self.name:
                self._findings.add_corrupt(path, f"a manifest of {self.name}", f"one of {manifest.table}")
            kind = MANIFEST_KINDS[self.kind]
            if manifest.facts.kind not in (kind, "dropped"):
                self._findings.add_corrupt(path, f"a manifest of {kind}", f"one of {manifest.facts.kind}")
        # A repair deletes unreadable manifests that are superseded, so only blocking ones are missing.
        blocking = find_blocking_manifests(entries, self.manifests)
        for digest in blocking:
            if digest not in existing:
                self._findings.add_missing(directory / f"{digest}.json")
        self.is_complete = self.is_complete and not blocking and existing <= set(self.manifests)

    def _is_imported(self) -> bool:
        """Returns whether the features are imported, so that the table has no extractor."""
        return isinstance(self.table_config, FeatureTableConfig) and self.table_config.extractor == IMPORTED

    def _check_extractor_record(self) -> None:
        """Compares `network.json`, which names the table's extractor, with the manifests and the frozen extractors."""
        path = self.root / EXTRACTOR_RECORD
        if not path.is_file():
            if self.live:
                self._findings.add_missing(path)
            return
        data = path.read_bytes()
        try:
            record = ExtractorRecord.parse(data)
        except ValueError:
            record = None
        facts = [one.facts for one in self.manifests.values() if isinstance(one.facts, FeatureMetadata)]
        if record is None or (facts and record.shape not in {one.shape for one in facts}):
            self._findings.add_corrupt(path, "the table's extractor and the shape of its rows", data)
        elif not record.path(self._findings.store).is_file():
            self._findings.add_missing(record.path(self._findings.store))


def read_histories(roots: list[Path], findings: Findings) -> list[TableHistory]:
    """Reads the histories of those directories that are tables."""
    parts = (LOG, MANIFESTS, RECIPE)
    return [TableHistory(root, findings) for root in roots if any((root / part).exists() for part in parts)]
