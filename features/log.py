"""The commit log of one table: numbered entries, each naming a manifest by digest.

    <table>/manifests/<sha256>.json   what a commit added, named by its own digest
    <table>/log/00000001.json         {"manifest": "<sha256>"}, put last and only where nothing is

A commit is visible once its log entry exists. Two writers that commit at once take two numbers; none is lost.
"""

import json
from pathlib import Path

from pydantic import ValidationError

from features.files import put_if_absent, write
from schemas.errors import DamagedError, StoreError
from schemas.manifests import MANIFEST_VERSION, Manifest
from schemas.recipes import canonical_json

LOG = "log"
MANIFESTS = "manifests"


class CommitLog:
    """Reads and extends the log of the table in `root`."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def entries(self) -> list[str]:
        """The digests of all commits, oldest first."""
        return [_entry(path) for path in sorted((self._root / LOG).glob("*.json"))]

    def live(self) -> list[Manifest]:
        """The manifests that no later one replaces, oldest first."""
        manifests = {digest: self.manifest(digest) for digest in self.entries()}
        replaced = {digest for manifest in manifests.values() for digest in manifest.replaces}
        return [manifest for digest, manifest in manifests.items() if digest not in replaced]

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
        """Make a commit visible; its digest. A manifest that is in the log already is not added again."""
        digest = manifest.digest
        write(self._root / MANIFESTS / f"{digest}.json", manifest.to_json())
        while True:
            entries = self.entries()
            if digest in entries:
                return digest
            path = self._root / LOG / f"{len(entries) + 1:08d}.json"
            if put_if_absent(path, canonical_json({"manifest": digest})):
                return digest


def _entry(path: Path) -> str:
    try:
        digest = json.loads(path.read_bytes())["manifest"]
    except (ValueError, KeyError, TypeError):
        raise DamagedError("the log entry is damaged", where=str(path)) from None
    return str(digest)


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
