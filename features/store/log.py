"""The commit log of one table: numbered entries, each naming a manifest by digest.

    <table>/manifests/<sha256>.json   what a commit added, named by its own digest
    <table>/log/00000001.json         {"manifest": "<sha256>"}, put last and only where nothing is

A commit is visible once its log entry exists. Two writers that commit at once take two numbers; none is lost. Entries
and the manifests they name are the table's history and stay; what a replaced manifest names may be collected.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from features.files import put_if_absent, write
from schemas.errors import DamagedError, StoreError
from schemas.manifests import MANIFEST_VERSION, DroppedFacts, Manifest
from schemas.recipes import canonical_json

LOG = "log"
MANIFESTS = "manifests"
ENTRY_NAME = re.compile(r"\d{8}\.json")
MANIFEST_NAME = re.compile(r"[0-9a-f]{64}\.json")


class CommitLog:
    """Reads and extends the log of the table in `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def entries(self) -> list[str]:
        """The digests of all commits, oldest first; DamagedError where an entry is damaged or missing."""
        # A listing made while others write may lack an entry older than one that it has, so it only tells the last.
        return [self.entry(number) for number in range(1, self.last() + 1)]

    def entry(self, number: int) -> str:
        """The digest that one entry names; the first is 1."""
        return _entry(self.entry_path(number))

    def last(self) -> int:
        """The number of the last entry; 0 where there is none."""
        names = (path.name for path in (self._root / LOG).glob("*.json"))
        return max((int(name[:8]) for name in names if ENTRY_NAME.fullmatch(name)), default=0)

    def entry_path(self, number: int) -> Path:
        """Where the entry of that number lies."""
        return self._root / LOG / f"{number:08d}.json"

    def live(self) -> list[Manifest]:
        """The manifests that no later one replaces, oldest first, those left out that only take others out."""
        manifests = {digest: self.manifest(digest) for digest in self.entries()}
        replaced = _replaced_by(manifests.values())
        return [
            manifest
            for digest, manifest in manifests.items()
            if digest not in replaced and not isinstance(manifest.facts, DroppedFacts)
        ]

    def manifest(self, digest: str) -> Manifest:
        """The manifest of that digest, checked against it."""
        path = self._root / MANIFESTS / f"{digest}.json"
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise DamagedError("the log names a manifest that is missing", where=str(path)) from None
        manifest = _parse(data, path)
        if manifest.digest != digest or manifest.to_json() != data:
            raise DamagedError(
                f"manifest is damaged: expected SHA-256 {digest}, got {manifest.digest}", where=str(path)
            )
        return manifest

    def append(self, manifest: Manifest) -> str:
        """Make a commit visible; the digest it has in the log.

        A manifest that is live already is not added again. One that was replaced since comes back as a manifest that
        names the same files and replaces its former self.
        """
        while True:
            entries = self.entries()
            digest = manifest.digest
            if digest not in entries:
                write(self._root / MANIFESTS / f"{digest}.json", manifest.to_json())
                if put_if_absent(self.entry_path(len(entries) + 1), canonical_json({"manifest": digest})):
                    return digest
            elif digest in _replaced_by(map(self.manifest, entries)):
                manifest = manifest.model_copy(update={"replaces": (*manifest.replaces, digest)})
            else:
                return digest


def _replaced_by(manifests: Iterable[Manifest]) -> set[str]:
    return {digest for manifest in manifests for digest in manifest.replaces}


def _entry(path: Path) -> str:
    try:
        data = path.read_bytes()
        digest = str(json.loads(data)["manifest"])
    except FileNotFoundError:
        raise DamagedError("an entry of the log is missing", where=str(path)) from None
    except (ValueError, KeyError, TypeError):
        raise DamagedError("the log entry is damaged", where=str(path)) from None
    if not MANIFEST_NAME.fullmatch(f"{digest}.json") or canonical_json({"manifest": digest}) != data:
        raise DamagedError("the log entry is damaged", where=str(path))
    return digest


def _parse(data: bytes, path: Path) -> Manifest:
    try:
        version = json.loads(data).get("version")
    except (ValueError, AttributeError):
        raise DamagedError("manifest is damaged: not JSON", where=str(path)) from None
    if isinstance(version, int) and version > MANIFEST_VERSION:
        raise StoreError(
            f"manifest has version {version}, this capt reads up to {MANIFEST_VERSION}",
            where=str(path),
            mend="use a newer capt",
        )
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise DamagedError(f"manifest is damaged: {place}: {first['msg']}", where=str(path)) from None
